"""
What is said, in which order; nothing about sockets, clocks or threads.

House rules: a dialogue is a generator of effects that never awaits and never sees a socket; only `wire.line` builds
a command; only `wire` and `content` write CRLF; a refusal becomes an error in `dialogue` and nowhere else.
"""
