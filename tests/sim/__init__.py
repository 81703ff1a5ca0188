"""Random graphs in the simulator: drawn by a seed, checked against an oracle, made small.

The way of a case: `draw` makes a `spec.Case` of a seed, `build` a graph of it (whose nodes are in
`nodes`), `trial` simulates it, and `oracle` says what was wrong with what the nodes saw. A failing
case is made smaller by `shrink`; what it found stays in `pinned.json`.
"""
