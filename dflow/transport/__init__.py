"""Sockets. The only package that imports zmq.

Facts of libzmq 4.3.5 this package leans on are listed in DESIGN §11: keep sockets open
until the receiver has confirmed, bind a fresh endpoint for each incarnation, keep the ipc
directory private, never fork with an open context.
"""
