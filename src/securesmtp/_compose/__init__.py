"""
How `securesmtp.compose` builds an EmailMessage: each part of a message has a module of its own.

Nothing is guessed from a string: an argument's place says whether it is an address, a path, text or HTML. What cannot
be right is refused before a file is read. Every part is ASCII as it is written, so no server has to convert it.
"""
