"""Benchmarks against what one would use instead; see `benchmarks.peers.__main__`."""
