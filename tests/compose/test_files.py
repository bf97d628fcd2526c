"""Attachments: paths, or names with bytes; what arrives has the same name, type and bytes."""

from __future__ import annotations

import hashlib
import io
import mimetypes
import os
import socket
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import fast_mail_parser
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from compose.wire import arrived, composed, read, wire
from conftest import examples
from securesmtp import ConfigurationError, MessageError
from securesmtp._compose.media_types import UNKNOWN


def _attached(message: EmailMessage) -> list[tuple[str | None, str, bytes]]:
    return [
        (part.get_filename(), part.get_content_type(), part.get_payload(decode=True))  # type: ignore[misc]
        for part in message.iter_attachments()
    ]


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_is_a_file_with_the_paths_last_part_as_name(kind: type, tmp_path: Path) -> None:
    """A str is a path here, never content."""
    path = tmp_path / "Rechnung März.pdf"
    path.write_bytes(b"%PDF-1.7")
    expected = [("Rechnung März.pdf", "application/pdf", b"%PDF-1.7")]
    assert _attached(arrived(attachments=kind(path))) == expected
    assert _attached(arrived(attachments=[kind(path)])) == expected


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc")], ids=["bytes", "bytearray", "view"])
def test_a_name_with_its_content_is_a_file(data: Any) -> None:
    """A tuple is one attachment, a list has several."""
    assert _attached(arrived(attachments=("a.csv", data))) == [("a.csv", "text/csv", b"abc")]
    assert _attached(arrived(attachments=[("a.csv", data), ("b", data, "image/png")])) == [
        ("a.csv", "text/csv", b"abc"), ("b", "image/png", b"abc"),
    ]  # fmt: skip
    assert _attached(arrived(attachments=(each for each in [("a.csv", data)]))) == [("a.csv", "text/csv", b"abc")]


def test_a_type_may_have_parameters() -> None:
    """Such as the charset, which no name says."""
    (part,) = arrived(attachments=("a.csv", "ü".encode(), "text/csv; charset=utf-8")).iter_attachments()
    assert (part.get_content_charset(), part.get_content()) == ("utf-8", "ü")


@pytest.mark.parametrize(
    ("given", "text", "hint"),
    [
        pytest.param(b"%PDF", "attachments is a bytes", "path", id="bytes-alone"),
        pytest.param({"a": b""}, "attachments is a dict", "path", id="a-mapping"),
        pytest.param(7, "attachments is a int", "path", id="a-number"),
        pytest.param([b"%PDF"], "an attachment is a bytes", "path", id="bytes"),
        pytest.param([None], "an attachment is a NoneType", "path", id="none"),
        pytest.param([("a", "text")], "content of an attachment is a str", "encode", id="text"),
        pytest.param([("a",)], "an attachment of 1 values", "path", id="one"),
        pytest.param([("a", b"", "a/b", 1)], "an attachment of 4 values", "path", id="four"),
        pytest.param([("a", b"", "pdf")], "'pdf' is not a media type", "application/pdf", id="no-type"),
        pytest.param([("a", b"", None)], "None is not a media type", "application/pdf", id="type-none"),
        pytest.param([("a", b"", "a/b\r\nX: y")], "not a media type", "application/pdf", id="type-injection"),
        pytest.param([("a", b"", 'a/b; c="d"')], "not a media type", "application/pdf", id="type-quotes"),
        pytest.param([("a", b"", "multipart/mixed")], "cannot have the type", "octet-stream", id="multipart"),
        pytest.param([("a", b"", "Message/Partial")], "cannot have the type", "octet-stream", id="message"),
        pytest.param([(7, b"")], "the file name 7 is a int", "", id="name-number"),
        pytest.param([("", b"")], "the file name '' is not the name of a file", "last part", id="name-empty"),
        pytest.param([("..", b"")], "is not the name of a file", "last part", id="name-dots"),
        pytest.param([("../a", b"")], "is not the name of a file", "last part", id="name-slash"),
        pytest.param([("a\\b", b"")], "is not the name of a file", "last part", id="name-backslash"),
        pytest.param([("225/2385.pdf", b"")], "is not the name of a file", "last part", id="name-number-slash"),
        pytest.param([(" a", b"")], "begins or ends with a blank", "remove", id="name-blank"),
        pytest.param([("ü" * 128, b"")], "longer than 255 bytes", "shorten", id="name-long"),
        pytest.param(["missing.pdf"], "'missing.pdf' cannot be read: No such file", "a str is a path", id="missing"),
        pytest.param(["a,b\n1,2\n"], r"has the character U\+000A", "remove", id="content-as-path"),
        pytest.param(["/"], "is not the name of a file", "last part", id="root"),
        pytest.param(["/tmp"], "'/tmp' is a folder or a device", "path of a file", id="folder"),
        pytest.param([os.devnull], "is a folder or a device", "path of a file", id="device"),
        pytest.param(["a\0b"], r"U\+0000", "remove", id="path-nul"),
        pytest.param(["d\0/b"], "cannot be read: not a path", "a str is a path", id="folder-nul"),
    ],
)
def test_what_is_no_attachment_is_refused(given: Any, text: str, hint: str) -> None:
    """Before anything is read; the error says what to pass."""
    with pytest.raises(MessageError, match=text) as caught:
        composed(attachments=given)
    assert hint in (caught.value.hint or "")


def test_a_path_of_bytes_is_refused() -> None:
    """Its name has no characters."""

    class Odd(os.PathLike[bytes]):
        def __fspath__(self) -> bytes:
            return b"a"

    with pytest.raises(MessageError, match="is bytes, not a str"):
        composed(attachments=[Odd()])


def test_a_pipe_or_a_socket_is_refused_at_once(tmp_path: Path) -> None:
    """Opening a pipe would wait for somebody to write."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        for name in ("pipe", "socket"):
            with pytest.raises(MessageError, match="a folder or a device"):
                composed(attachments=[tmp_path / name])


@pytest.mark.parametrize("name", ["a.pdf", "a.eml"])
def test_a_file_that_vanishes_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cause is the system's error."""
    (tmp_path / name).write_bytes(b"x")

    def vanish(path: Path, mode: str) -> Any:
        path.unlink()
        return io.FileIO(path)

    monkeypatch.setattr(Path, "open", vanish)
    with pytest.raises(MessageError, match="cannot be read") as caught:
        composed(attachments=[tmp_path / name])
    assert isinstance(caught.value.__cause__, FileNotFoundError)


UNSAFE = {
    "nul": "\x00", "tab": "\t", "lf": "\n", "c1": "\x9f", "line": "\u2028", "override": "\u202e", "isolate": "\u2066",
    "mark": "\u200f", "arabic-mark": "\u061c", "surrogate": "\udcff",
}  # fmt: skip


@pytest.mark.parametrize("character", UNSAFE.values(), ids=UNSAFE)
def test_a_control_character_in_a_file_name_is_refused(character: str) -> None:
    """A name such as "a<U+202E>gpj.exe" reads "aexe.jpg"."""
    with pytest.raises(MessageError, match=rf"U\+{ord(character):04X} \("):
        composed(attachments=[(f"a{character}gpj.exe", b"")])


FILE_NAMES = st.text(
    st.characters(
        exclude_categories=["Cc", "Cs", "Zl", "Zp"],
        exclude_characters="/\\\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    ),
    min_size=1,
).map(str.strip)  # fmt: skip
ODD = [
    "=?utf-8?q?x?=.pdf",
    "a'b(1)%.pdf",
    'a"b.pdf',
    "a;b=c.pdf",
    "utf-8''x",
    "a%20b",
    "x" * 255,
    "ü" * 127,
    "😀" * 63,
    ".bashrc",
]


def _read_by_two(name: str) -> tuple[str | None, str | None]:
    data = wire(composed(attachments=[(name, b"x")]))
    (part,) = read(data).iter_attachments()
    return part.get_filename(), fast_mail_parser.parse_email(data).attachments[-1].filename


@given(name=FILE_NAMES.filter(lambda text: text not in {"", ".", ".."} and len(text.encode()) <= 255))
@settings(max_examples=examples(150), deadline=None)
def test_any_file_name_is_read_as_it_was_set(name: str) -> None:
    """By parsers in Python and in Rust."""
    # Python's reader drops angle brackets round a name, however it is encoded.
    assume(not (name.startswith("<") and name.endswith(">")))
    assert _read_by_two(name) == (name, name)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_name_is_read_as_it_was_set(name: str) -> None:
    """As RFC 2231 asks; in quotes, readers would decode it or cut it."""
    assert _read_by_two(name) == (name, name)


def test_a_file_name_is_encoded_only_if_necessary() -> None:
    """Unquoted, with everything escaped that has a meaning there; also with SMTPUTF8."""
    plain, odd = wire(composed(attachments=[("my report, v1.pdf", b""), ("ü'(%).pdf", b"")])).split(b"filename")[1:]
    assert plain.startswith(b'="my report, v1.pdf"\r\n')
    assert odd.startswith(b"*=utf-8''%C3%BC%27%28%25%29.pdf\r\n")
    assert b"filename*=utf-8''%C3%BC.pdf\r\n" in wire(composed(to="ü@example.net", attachments=[("ü.pdf", b"")]))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("report.csv", "text/csv"), ("REPORT.CSV", "text/csv"), ("report.csv.gz", "application/gzip"),
        ("a.js", "text/javascript"), ("a.ts", UNKNOWN), ("a.parquet", "application/vnd.apache.parquet"),
        ("a.tar.xz", UNKNOWN), ("pdf", UNKNOWN), ("a.", UNKNOWN),
        ("a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ],
)  # fmt: skip
def test_the_type_is_that_of_a_fixed_table(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine thinks: on Windows, a CSV is a file of Excel's."""
    monkeypatch.setattr(mimetypes, "guess_type", lambda *_: ("application/vnd.ms-excel", None))
    mimetypes.add_type("application/vnd.ms-excel", ".csv")
    try:
        assert _attached(arrived(attachments=(name, b""))) == [(name, kind, b"")]
    finally:
        mimetypes.init()


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.html", "a.json", "a.bin", "a.eml"])
@pytest.mark.parametrize(
    "data",
    [
        b"", b"a\nb\n", b"a\r\nb\r\n", b"a\rb\r", b"a\r\nb\nc", b"no end", b".\r\n", b"\xff\xfe", b"x" * 2000,
        bytes(range(256)) * 9,
    ],
    ids=["empty", "lf", "crlf", "cr", "mixed", "no-end", "dot", "bytes", "long", "many"],
)  # fmt: skip
def test_the_bytes_of_a_file_arrive_unchanged(name: str, data: bytes) -> None:
    """Also a text's line ends, which receivers compare by hash."""
    ((_, kind, found),) = _attached(arrived(attachments=(name, data)))
    if kind == "message/rfc822":
        return
    assert hashlib.sha256(found).digest() == hashlib.sha256(data).digest()


EML = b"Subject: A  long\r\n subject\r\nX-Folded: a\r\n\tb\r\nContent-Type: text/plain\r\n\r\nHello\r\n.\r\n"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(EML, "message/rfc822", id="crlf"),
        pytest.param(EML.replace(b"\r\n", b"\n"), "application/octet-stream", id="lf"),
        pytest.param(EML + b"\xc3\xbc\r\n", "application/octet-stream", id="8bit"),
        pytest.param("Message-ID: <ü@x>\r\n\r\n".encode(), "application/octet-stream", id="utf8-header"),
        pytest.param(EML.removesuffix(b"\r\n"), "application/octet-stream", id="no-end"),
        pytest.param(EML + b"x" * 900 + b"\r\n", "message/rfc822", id="900"),
        pytest.param(EML + b"x" * 901 + b"\r\n", "application/octet-stream", id="some-servers-break-it"),
        pytest.param(EML + b"x" * 999 + b"\r\n", "application/octet-stream", id="long"),
        pytest.param(b"\0", "application/octet-stream", id="nul"),
        pytest.param(b"hello", "application/octet-stream", id="no-message"),
        pytest.param(b"", "application/octet-stream", id="empty"),
        pytest.param(
            b"Content-Type: multipart/mixed; boundary=x\r\n\r\nbefore\r\n--x\r\n\r\na\r\n--x--\r\nafter\r\n",
            "message/rfc822", id="multipart",
        ),
    ],
)  # fmt: skip
def test_an_attached_message_is_one_if_its_bytes_stay(data: bytes, kind: str) -> None:
    """Base64 is not allowed for it, and some readers save 0 bytes of it; else it is a file like any other."""
    for name, more in (("a.eml", ()), ("forwarded", ("message/rfc822",))):
        sent = wire(composed(attachments=[(name, data, *more)]))
        (part,) = read(sent).iter_attachments()
        assert (part.get_filename(), part.get_content_type()) == (name, kind)
        if kind == "message/rfc822":
            assert "Content-Transfer-Encoding" not in part
            assert data in sent
        else:
            assert part.get_payload(decode=True) == data


def test_too_large_a_message_is_refused_before_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the name of the largest file; the size is that of the encoded bytes."""
    (tmp_path / "large.bin").write_bytes(bytes(100_000))
    given = {"attachments": [tmp_path / "large.bin", ("small.bin", b"x")]}
    actual = len(wire(composed(**given)))
    composed(max_size=actual, **given)
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("it was read"))
    with pytest.raises(MessageError, match=r"13\d{4} bytes, .*=130000; its largest file is 'large.bin', 100000"):
        composed(max_size=130_000, **given)
    with pytest.raises(MessageError, match=r"which is more than max_size=2\."):
        composed(max_size=2, text="12345")
    for wrong in (True, -1, "1", 1.5):
        with pytest.raises(ConfigurationError, match="not a number of bytes"):
            composed(max_size=wrong)


def test_the_size_is_that_of_the_encoded_bytes() -> None:
    """Exactly, for each length of the last line."""
    for size in (0, 1, 2, 3, 56, 57, 58, 113, 114, 115):
        data = wire(composed(attachments=[("a", bytes(size))]))
        encoded = data.partition(b'filename="a"')[2].partition(b"\r\n\r\n")[2].partition(b"\r\n--")[0]
        text = len("Hi\n")
        with pytest.raises(MessageError, match=rf"would have {len(encoded) + text} bytes"):
            composed(attachments=[("a", bytes(size))], max_size=0)


def test_policies_of_the_standard_library_write_it_too() -> None:
    """The message is a standard one, to be sent by other means as well."""
    message = composed(attachments=[("ü.pdf", b"\0\xff"), ("a.eml", EML)], headers={"X-Note": "ü"})
    for style in (policy.SMTP, policy.default, policy.SMTPUTF8):
        found = _attached(read(message.as_bytes(policy=style)))
        assert found[0] == ("ü.pdf", "application/pdf", b"\0\xff")
        assert found[1][:2] == ("a.eml", "message/rfc822")
