"""What goes over sockets, as bytes: values, frames of messages and notes, control messages.

Pure: no sockets, threads or clocks. Whatever comes from a peer may be wrong: it raises
`DecodeError` or `ProtocolError`, and nothing else, before anything is changed. Nothing that
is decoded can run code: there is no pickle here.
"""
