"""`DKIM`: signs the messages of a mailer, or bytes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, NoReturn, final

from securesmtp._protocol.address import ascii_domain
from securesmtp._protocol.content import Content
from securesmtp._protocol.dkim import ALWAYS_SIGNED, DKIM_HEADERS, Signable, Tags
from securesmtp._protocol.seven_bit import make_seven_bit
from securesmtp._shown import quote, withhold
from securesmtp.errors import ConfigurationError, MessageError
from securesmtp.signing._keys import Ed25519Key, RSAKey, hide_key, load_key
from securesmtp.signing._record import record

if TYPE_CHECKING:
    from securesmtp._protocol.message import Submission
    from securesmtp.signing._keys import KeySource
    from securesmtp.signing._record import DNSRecord

# RFC 5322 §2.2: a field name, as far as it can be in a tag (RFC 6376 §3.5).
_NAME = re.compile(r"[!-9<-~]+")
# RFC 6376 §3.1: labels with dots between them. Underscores occur in the DNS.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_SELECTOR = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_MOST_SELECTOR = 200


@final
class DKIM:
    """
    Sign messages with DKIM (RFC 6376): ``SecureMailer("smtp.example.com", sign=DKIM("example.org", "2027", key))``.

    A signature is ``rsa-sha256`` with relaxed canonicalization of header and body. It covers the whole body, and the
    fields of *headers* that the message has. It does not expire.

    The key is read once, now; no repr, error or log shows it. Threads and mailers can share the object.

    Attributes:
        domain: The domain that is responsible for the messages, in ASCII.
        selector: The name of the key in the DNS, at ``SELECTOR._domainkey.DOMAIN``.
        headers: The names of the fields that are signed, in lower case.
    """

    __slots__ = ("_keys", "domain", "headers", "selector")

    domain: str
    selector: str
    headers: tuple[str, ...]

    def __init__(  # noqa: PLR0913 -- the second key by keyword
        self,
        domain: str,
        selector: str,
        key: KeySource,
        *,
        headers: Iterable[str] = DKIM_HEADERS,
        ed25519_selector: str | None = None,
        ed25519_key: KeySource | None = None,
    ) -> None:
        """
        Read the key.

        Args:
            domain: The domain of the address in From, or one above it, for DMARC.
            selector: The name of the key.
            key: An RSA key of 2048 to 4096 bits in PEM, as a str, bytes or a `Secret`; a path to its file (a
                `pathlib.Path`, not a str); or a callable that returns its text.
            headers: The names of the fields to sign. From, List-Unsubscribe and List-Unsubscribe-Post are always
                signed.
            ed25519_selector: The name of a second key, for a second signature (RFC 8463).
            ed25519_key: That key: Ed25519, as *key*.

        Raises:
            ConfigurationError: An argument is wrong, or the extra ``sign`` is not installed.
        """
        # First of all, so that no frame of a traceback holds the text.
        key = hide_key(key)
        ed25519_key = None if ed25519_key is None else hide_key(ed25519_key)
        domain, selector, ed25519_selector = withhold(domain), withhold(selector), withhold(ed25519_selector)
        headers = withhold(headers)
        # Before any check fails, because a traceback may show this object.
        self._keys: tuple[tuple[str, RSAKey | Ed25519Key], ...] = ()
        self.domain, self.selector, self.headers = (
            check_domain(domain),
            check_selector("selector", selector),
            _names(headers),
        )
        main = load_key(key, "key")
        if not isinstance(main, RSAKey):
            message = "the key is an Ed25519 key, which large receivers do not verify"
            raise ConfigurationError(message, hint="pass an RSA key, and this one as ed25519_key with ed25519_selector")
        self._keys = ((self.selector, main),)
        if (ed25519_selector is None) != (ed25519_key is None):
            message = "ed25519_selector and ed25519_key belong together, and one of them is None"
            raise ConfigurationError(message)
        if ed25519_selector is not None and ed25519_key is not None:
            name, second = check_selector("ed25519_selector", ed25519_selector), load_key(ed25519_key, "ed25519_key")
            if not isinstance(second, Ed25519Key):
                raise ConfigurationError("the ed25519_key is not an Ed25519 key")
            if name == self.selector:
                message = f"both keys have the selector {quote(name)}, and the DNS has one key for each"
                raise ConfigurationError(message)
            self._keys += ((name, second),)

    def __repr__(self) -> str:
        """Return whose key it is."""
        return f"<DKIM of {getattr(self, 'domain', '?')} with the selector {getattr(self, 'selector', '?')}>"

    def __reduce__(self) -> NoReturn:
        """
        Refuse to be pickled, and so to be copied or sent to another process.

        Raises:
            TypeError: Always.
        """
        message = "a DKIM cannot be pickled: it has a private key; create one in each process"
        raise TypeError(message)

    def sign(self, data: bytes | BinaryIO) -> bytes:
        """
        Return the DKIM-Signature fields of a message that is bytes already; they belong before its first line.

        Line ends in them, and in what is signed, are CRLF. Do not change the message afterwards.

        Args:
            data: The message, or a file in binary mode, which is read from its current position to its end.

        Raises:
            ConfigurationError: *data* is neither bytes nor a file.
            MessageError: It cannot be sent as it is, has no From, or its body is not ASCII.
        """
        if isinstance(data, bytes | bytearray | memoryview):
            content = Content.from_bytes(bytes(data))
        elif callable(getattr(data, "read", None)):
            content = Content.from_file(data)
        else:
            message = f"data is a {type(data).__name__}, neither bytes nor a file"
            hint = "encode a str; for an EmailMessage, use SecureMailer(sign=...), which signs what it sends"
            raise ConfigurationError(message, hint=hint)
        try:
            return self._fields(content)
        finally:
            content.close()

    def dns_records(self) -> tuple[DNSRecord, ...]:
        """Return the record of each key; it has to be in the DNS before the first message is signed."""
        return tuple(record(self.domain, selector, key) for selector, key in self._keys)

    def _fields(self, content: Content) -> bytes:
        signable, now = Signable(content.unsigned()), int(time.time())
        return b"".join(
            signable.sign(Tags(key.algorithm, self.domain, selector, self.headers), now, key.sign)
            for selector, key in self._keys
        )


def sign_submission(dkim: DKIM, submission: Submission) -> Submission:
    """
    Return *submission* with the signatures of *dkim*, in the form in which it is sent.

    Raises:
        MessageError: It has no 7-bit form, or no From, or is binary; its content is closed.
    """
    if submission.content.is_binary:
        # RFC 6376 §5.3: a server without BINARYMIME would have to encode it, which voids the signature.
        submission.content.close()
        message = "a binary message cannot be signed"
        raise MessageError(message, hint="encode the parts as base64, and leave out binary")
    try:
        submission = make_seven_bit(submission)
        content = submission.content
        return replace(submission, content=content.with_prefix(dkim._fields(content)))
    except BaseException:
        submission.content.close()
        raise


def check_domain(domain: str) -> str:
    """
    Return *domain* in ASCII.

    Raises:
        ConfigurationError: It is not the name of a domain.
    """
    given: object = domain
    if isinstance(given, str) and "." in given:
        with suppress(ValueError):
            return ascii_domain(given).lower()
    message = f"domain is {quote(domain)}, not a domain name"
    raise ConfigurationError(message, hint="pass the domain of your addresses, such as example.org")


def check_selector(what: str, selector: str) -> str:
    """
    Return *selector*, if it can be a part of a name in the DNS.

    Raises:
        ConfigurationError: It cannot; *what* names the argument.
    """
    given: object = selector
    if isinstance(given, str) and len(given) <= _MOST_SELECTOR and _SELECTOR.fullmatch(given):
        return given
    message = f"{what} is {quote(selector)}, not a name of letters, digits and hyphens"
    raise ConfigurationError(message, hint="pass what is before ._domainkey in the DNS, such as mail2027")


def _names(headers: Iterable[str]) -> tuple[str, ...]:
    iterable: object = headers
    names = [] if isinstance(iterable, str) or not isinstance(iterable, Iterable) else list(iterable)
    if not names or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        message = "headers is not a list of names of header fields"
        raise ConfigurationError(message, hint="leave it out, or begin with securesmtp.signing.DKIM_HEADERS")
    lowered = [name.lower() for name in (*ALWAYS_SIGNED[:1], *names, *ALWAYS_SIGNED[1:])]
    if "dkim-signature" in lowered:
        raise ConfigurationError("headers names DKIM-Signature, which a signature does not cover")
    return tuple(dict.fromkeys(lowered))
