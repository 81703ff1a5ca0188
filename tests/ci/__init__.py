"""What ``scripts/test`` and ``scripts/nightly`` run: stages, dealt out in shards."""
