"""Why a run does not get on: who waits for whom, and what keeps them all waiting. Pure.

`explain` reads it off one `RunStatus`, so it can be asked of a run under way, of one that has
passed a deadline, and of one that is known from a file only.

The idea. What each replica does is one of a few things (`dflow.report.ReplicaStatus`). Some are
waits for another: for room on an edge, for a result that must come next, for an end. Following
these leads to somebody who waits for nobody in the run: it is busy in its own code, paused, not
heard of. That is the *cause*, and a `Chain` tells the way back from it to whoever waits longest.
If following them leads round in a circle, the circle is the cause.

A wait is worth a word from `LONG_S` on: under load everybody waits a little, all the time.

Rejected: guessing from full edges alone (an edge is full wherever a consumer is the slower one,
and that is no fault), and time stamps for each message (they cost, and who is *in* a handler has
not sent any).
"""

from dflow.why.chains import Chain, Link, Why, explain
from dflow.why.words import LONG_S, is_full, minutes_text

__all__ = ["LONG_S", "Chain", "Link", "Why", "explain", "is_full", "minutes_text"]
