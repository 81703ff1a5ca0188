"""Benchmarks: dflow against a pipeline written by hand, in turn, in the same run.

``python -m benchmarks.run`` measures everything and writes ``benchmarks/results.json``;
``python -m benchmarks.throughput`` (and ``latency``, ``startup``, ``scheduler``, ``control``)
measure one thing.
``pytest benchmarks/micro`` holds the microbenchmarks.

Absolute numbers depend on the machine and on the minute. The ratios are the result: both
sides run the same user code (`benchmarks.workload`), alternately, and the median of several
rounds is compared.
"""
