"""
The SMTP protocol, without sockets, clocks and threads.

A dialogue is a generator that yields effects, such as a line to send or a reply to wait for. Only `wire.line` builds a
command line, only `content` prepares the bytes of a message, and `replies` is the only table of reply codes.
"""
