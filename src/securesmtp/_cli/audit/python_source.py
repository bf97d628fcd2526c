"""Python sources: whether they compile, which need the rules, and what is on a line."""

from __future__ import annotations

import ast
import re
import sys
import warnings
from typing import Final

from securesmtp._cli.audit.report import NotCheckedError

LINE_END: Final = re.compile(r"\r\n|\r|\n")
# A file without these words needs no rules.
_WORDS: Final = re.compile(rb"smtp|mail", re.IGNORECASE)
# PEP 263; it is in the first two lines.
_CODING: Final = re.compile(rb"\A(?:[^\r\n]*(?:\r\n|\r|\n))?[ \t\f]*#[^\r\n]*?coding[:=][ \t]*([-\w.]+)")
# In these encodings the words are written as in ASCII.
_LIKE_ASCII: Final = re.compile(
    rb"utf[-_]?8|(us-)?ascii|latin|l1|iso[-_]?8859|(cp|windows-)125\d|gbk?|euc|shift|big5|koi8", re.IGNORECASE
)


def needs_rules(source: bytes) -> bool:
    """Return whether a source can hold what the rules find."""
    coding = _CODING.match(source)
    return _WORDS.search(source) is not None or (coding is not None and _LIKE_ASCII.match(coding[1]) is None)


def compile_source(path: str, source: bytes | str, flags: int = 0) -> None:
    """
    Compile a source, without running it: what only parses may be no Python, such as two arguments of one name.

    Raises:
        NotCheckedError: It does not compile.
    """
    try:
        with warnings.catch_warnings():
            # They are about the audited code.
            warnings.simplefilter("ignore")
            compile(source, path, "exec", flags, dont_inherit=True)
    except SyntaxError as error:
        where = f", line {error.lineno}" if error.lineno else ""
        raise NotCheckedError(f"not Python {sys.version_info[0]}.{sys.version_info[1]}: {error.msg}{where}") from None
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise NotCheckedError(f"cannot be compiled: {str(error) or type(error).__name__}") from None


def parse_source(source: bytes | str) -> ast.Module:
    """
    Return the syntax tree of a source that compiles.

    Raises:
        NotCheckedError: Its expressions are nested too deeply.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (RecursionError, MemoryError) as error:
        raise NotCheckedError(f"cannot be parsed: {type(error).__name__}") from None


def decode(source: bytes) -> str:
    """Return the text of a source that compiles."""
    coding = _CODING.match(source)
    try:
        return source.decode("utf-8-sig" if coding is None else coding[1].decode("ascii"))
    except (UnicodeDecodeError, LookupError):
        return source.decode("latin-1")
