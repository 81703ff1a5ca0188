"""Benchmarks: dflow against a pipeline written by hand, in turn, in the same run.

``scripts/bench`` measures everything that is registered (`benchmarks.registry`) and writes
``benchmarks/results.json``; ``scripts/bench --check`` compares with ``benchmarks/baselines.json``
(`benchmarks.guard`). ``python -m benchmarks.throughput`` (and ``hop``, ``fuse``, ``latency``,
``startup``, ``scheduler``, ``control``) measure one thing.
``pytest benchmarks/micro`` holds the microbenchmarks.

Absolute numbers depend on the machine and on the minute. The ratios are the result: both
sides run the same user code (`benchmarks.workload`), alternately, and the median of several
rounds is compared.
"""
