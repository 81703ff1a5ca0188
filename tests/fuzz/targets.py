"""Every target by name, and what was found once (``pins/TARGET/NAME``, in base64)."""

from __future__ import annotations

import base64
from pathlib import Path

from tests.fuzz.decoders import DECODERS
from tests.fuzz.peers import PEERS
from tests.fuzz.promise import Target

__all__ = ["PINS", "TARGETS", "pins", "read"]

TARGETS: dict[str, Target] = {target.name: target for target in (*DECODERS, *PEERS)}
PINS = Path(__file__).parent / "pins"


def pins() -> list[tuple[str, Path]]:
    """Return every pin with the name of its target."""
    return [(path.parent.name, path) for path in sorted(PINS.glob("*/*.b64"))]


def read(path: Path) -> bytes:
    """Return the input in a file: a pin, or what a fuzzer left."""
    data = path.read_bytes()
    return base64.b64decode(data) if path.suffix == ".b64" else data
