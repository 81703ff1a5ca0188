"""What the simulator once found, tried again: the case itself, as seeds mean another one each time
that the generator is changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.sim.spec import Case
from tests.sim.trial import try_case

PINNED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "pinned.json").read_text())


@pytest.mark.parametrize("pinned", PINNED, ids=[pinned["found"][:60] for pinned in PINNED])
def test_what_was_found_once_stays_mended(pinned: dict[str, Any]) -> None:
    assert try_case(Case.from_dict(pinned["case"])).wrong == ()
