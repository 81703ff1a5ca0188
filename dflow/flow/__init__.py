"""Flow control: credit, lanes, out-edges and in-edges. Pure: no sockets, threads or clocks.

The protocol, for one channel (one edge between one sender and one receiver replica):

* The sender MUST NOT have more than ``capacity`` messages, nor more than ``max_bytes``
  payload bytes, sent but not reported *taken*; except that a message larger than the
  whole byte window MAY be sent when nothing else is outstanding.
* The receiver reports cumulative counters ``(taken, taken_bytes, done)``. A report MUST be
  sent when half a window is owed; it MAY be late otherwise, but an idle receiver MUST
  report everything it owes. Reports that are lost, repeated or out of order are harmless:
  the largest counter wins.
* ``taken`` means "left the queue, you may send more"; ``done`` means "its effects are safe,
  you may forget it". They are never mixed up.
* Batches carry the number of their first message; a gap or a repetition is a protocol
  error. END carries the number of messages sent on the channel in total.

Worked example, ``capacity=4``: send 0‥3 (window full) → receiver takes 0, 1 and reports
``taken=2`` → sender sends 4, 5 → receiver takes 2‥5, is idle, reports ``taken=6``.

The demand protocol follows the credit schemes of GenStage and of HTTP/2 flow control
(RFC 9113 §5.2), with cumulative counters instead of increments.
"""
