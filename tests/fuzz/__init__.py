"""Hostile input: what decodes bytes of a peer, what it promises, and how the promise is broken.

A `Target` and its promise are defined once, and attacked from two sides: by Hypothesis in CI
(``tests/property/test_fuzz.py``) and by a coverage-guided fuzzer at night (``scripts/fuzz``).
What either finds becomes a file in ``pins/``, which CI replays for ever.

* `promise`: what a target is, and the check of one input
* `mutations`: inputs made of valid ones, so that most get past the first check
* `decoders`, `peers`: the targets; of pure decoders, and of whole participants
* `guided`: one target under the fuzzer; `__main__` runs all, and replays
"""
