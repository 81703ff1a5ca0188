"""Microbenchmarks of the pure parts of a message's way: `pytest benchmarks/micro`."""
