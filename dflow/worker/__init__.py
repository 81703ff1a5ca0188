"""The process that hosts one replica of a node.

A worker has a main thread (user code and data sockets: `dflow.worker.loop`) and one pulse
thread (coordinator link, statistics, and flushing what blocked user code left behind:
`dflow.worker.pulse`). What it does next is decided by `dflow.worker.state`, which is pure.
"""
