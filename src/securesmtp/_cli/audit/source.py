"""Parse a file, or say why it is not checked."""

from __future__ import annotations

import ast
import warnings


class NotCheckedError(Exception):
    """
    A file was not checked, so nothing is known about it.

    Attributes:
        reason: Why, such as ``syntax error in line 3: invalid syntax``.
        line: Where, from 1; 0 for the whole file.
    """

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


def parse(data: bytes, path: str, flags: int = 0) -> ast.Module:
    """
    Return the syntax tree of a file. Its bytes are given, for the sake of its coding line and byte order mark.

    For a notebook, *flags* are those of `compile`.

    Raises:
        NotCheckedError: Python cannot read it: a syntax error, code for Python 2, nesting that is too deep.
    """
    try:
        # Warnings about the audited code are not ours to print.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(data, path)
            # Some faults, such as an argument that occurs twice, are found only here. Nothing is run.
            compile(data, path, "exec", flags, dont_inherit=True)
    except SyntaxError as error:
        line = error.lineno or 0
        where = f" in line {line}" if line else ""
        raise NotCheckedError(f"syntax error{where}: {error.msg}", line) from None
    except ValueError as error:
        # Null bytes; on some Pythons an unknown encoding.
        raise NotCheckedError(f"not Python: {error}") from None
    except (RecursionError, MemoryError):
        raise NotCheckedError("too deeply nested to parse") from None
    return tree
