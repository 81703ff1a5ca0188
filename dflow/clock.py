"""The clocks. Pure code takes ``now`` as a parameter; only loops call these."""

from __future__ import annotations

from time import monotonic_ns, time_ns

__all__ = ["monotonic_ns", "wall_ns"]

wall_ns = time_ns
