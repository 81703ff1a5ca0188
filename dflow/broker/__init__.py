"""The coordinator: starts a run, ends it, keeps its books, and never touches a message.

What it decides is pure: `state` takes an event and the time and returns instructions, made up of
one machine a matter (lifecycle, pausing, cancelling, turns, books). `loop` has the sockets and
the clock and carries the instructions out; `main` is the process.
"""
