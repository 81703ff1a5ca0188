"""The clocks. Pure code takes ``now`` as a parameter; only loops call these.

``monotonic_ns`` never jumps; ``wall_ns`` and ``wall_s`` are Unix time, for people and for
comparing hosts. ``cpu_ns`` is the processor time this process has used, of all its threads.
"""

from __future__ import annotations

from time import monotonic_ns
from time import process_time_ns as cpu_ns
from time import time as wall_s
from time import time_ns as wall_ns

__all__ = ["cpu_ns", "monotonic_ns", "wall_ns", "wall_s"]
