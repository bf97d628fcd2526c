"""Django's functions send over verified TLS, and return and raise what Django's own backend does."""

from __future__ import annotations

import copy
import pickle
import threading
from contextlib import nullcontext
from email import message_from_bytes, policy
from email.message import EmailMessage as PythonMessage
from email.mime.base import MIMEBase
from email.utils import parseaddr
from pathlib import Path
from typing import Any

import django
import pytest
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage, EmailMultiAlternatives, mail_admins, mail_managers, send_mail, send_mass_mail
from django.core.mail.backends import smtp
from django.utils import translation
from django.utils.functional import lazy

from conftest import Serve
from integrations.django.conftest import HAS_MAILERS, Configure
from scripted import Accepted, Mode, Peer, ScriptedServer, honest
from securesmtp import (
    AddressError,
    AuthenticationError,
    Envelope,
    Outcome,
    OutcomeUnknownError,
    RecipientsRefusedError,
    SendResult,
)
from securesmtp.integrations.django import get_result, use_mailer
from securesmtp.ledger import SQLiteLedger

LOGIN = {"username": "me", "password": "secret"}


def to(number: int = 0, **options: Any) -> EmailMessage:
    """Return a message to one recipient."""
    return EmailMessage("Hello", "Text", "me@example.org", [f"you{number}@example.net"], **options)


def result_of(message: EmailMessage) -> SendResult:
    """Return what became of a message that was tried."""
    result = get_result(message)
    assert result is not None
    assert vars(message)["securesmtp_result"] == result
    return result


def envelope(message: Accepted) -> tuple[str, list[str]]:
    """Return the reverse-path and the recipients of what a server accepted."""
    return path(message.mail_from), sorted(map(path, message.recipients))


def path(line: bytes) -> str:
    """Return what is between < and > in a command."""
    return line.decode().partition("<")[2].partition(">")[0]


def parsed(message: Accepted) -> PythonMessage:
    """Return what a server accepted as a message."""
    return message_from_bytes(message.content, policy=policy.default)


def default_connection() -> Any:
    """Return a backend as the installed Django makes it."""
    return mail.mailers.default if hasattr(mail, "mailers") else mail.get_connection()


@pytest.mark.parametrize("login", [{}, LOGIN], ids=["no login", "login"])
def test_a_message_arrives(serve: Serve, configure: Configure, mode: Mode, login: dict[str, str]) -> None:
    """`EMAIL_USE_SSL` is implicit TLS, `EMAIL_USE_TLS` is STARTTLS; the password is sent inside TLS."""
    server = serve(honest(mode, auth=("me", "secret") if login else None))
    tls = {"use_ssl": mode == "implicit", "use_tls": mode == "starttls"}
    configure(server, **tls, **login)
    sent = send_mail("Grüße", "Hello\n.dot", "Ada <ada@example.org>", ["Grace <grace@example.net>", "you@example.net"])
    (message,) = server.accepted
    assert sent == 1
    assert envelope(message) == ("ada@example.org", ["grace@example.net", "you@example.net"])
    assert (parsed(message)["Subject"], parsed(message).get_content()) == ("Grüße", "Hello\r\n.dot\r\n")
    assert parsed(message)["To"] == "Grace <grace@example.net>, you@example.net"


def test_all_calls_share_one_connection(serve: Serve, configure: Configure) -> None:
    """Django makes a backend for each call (PITFALLS-1 D1); other settings are another mailer."""
    server = serve()
    configure(server)
    assert sum(send_mail("Hello", "Text", "me@example.org", ["you@example.net"]) for _ in range(100)) == 100
    assert (len(server.accepted), len(server.connections)) == (100, 1)
    # As a test does, without a signal.
    configure(server, deadline=20)
    assert to().send() == 1
    assert len(server.connections) == 2


def test_another_password_is_another_login(serve: Serve, configure: Configure) -> None:
    """The mailer of the right password does not send for who has a wrong one."""
    server = serve(honest(auth=("me", "secret")))
    configure(server, **LOGIN)
    assert to().send() == 1
    configure(server, username="me", password="wrong")
    with pytest.raises(AuthenticationError):
        to().send()
    assert len(server.accepted) == 1


def test_threads_share_the_mailer(serve: Serve, configure: Configure) -> None:
    """Each thread has a backend of its own; together they have four connections."""
    server = serve()
    configure(server)
    threads = [threading.Thread(target=to(number).send) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path(each.recipients[0]) for each in server.accepted) == sorted(
        f"you{number}@example.net" for number in range(12)
    )
    assert len(server.connections) <= 4


# What differs between the header and the envelope (PITFALLS-1 D9).
BESIDE: dict[str, EmailMessage] = {}
_ROWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no recipient": {"to": []},
    "only bcc": {"to": [], "bcc": ["blind@example.net"]},
    "cc and bcc": {"cc": ["cc@example.net"], "bcc": ["blind@example.net"]},
    "another From": {"headers": {"From": "List <list@example.org>"}},
    "another To": {"headers": {"To": "undisclosed-recipients:;"}},
    "another From and To": {"headers": {"From": "list@example.org", "To": "List <list@example.org>"}},
    "Sender": {"headers": {"Sender": "robot@example.org"}},
    "Reply-To": {"reply_to": ["Ada <ada@example.org>", "eva@example.org"]},
    "own ids": {"headers": {"Message-ID": "<own@example.org>", "Date": "Fri, 27 Nov 2026 10:00:00 +0000"}},
    "twice the same": {"to": ["you@example.net"], "cc": ["you@example.net"]},
    "display names": {"from_email": '"Ada, née B" <ada@example.org>', "to": ['"Größe, X" <you@example.net>']},
    "attachments": {"attachments": [("a.txt", "text", "text/plain"), ("ä.pdf", b"%PDF", "application/pdf")]},
    "a message attached": {"attachments": [("m.eml", b"Subject: inner\n\nText\n", "message/rfc822")]},
    "long lines": {"body": "x" * 2000},
    "non-ASCII": {"subject": "Ünï", "body": "Jürgen ✓"},
}
for _name, _options in _ROWS.items():
    _message = EmailMultiAlternatives(
        **{"subject": "Hello", "body": "Text", "from_email": "me@example.org", "to": ["you@example.net"], **_options}
    )
    if _name == "attachments":
        _message.attach_alternative("<p>Text</p>", "text/html")
    BESIDE[_name] = _message


def _parts(message: PythonMessage) -> list[tuple[str, str | None, bytes | None]]:
    return [
        (part.get_content_type(), part.get_filename(), part.get_payload(decode=True))  # type: ignore[misc]
        for part in message.walk()
    ]


@pytest.mark.parametrize("name", BESIDE)
def test_what_arrives_is_what_django_sends(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve, configure_email: Configure, monkeypatch: pytest.MonkeyPatch, ca_file: Path, server_tls: Any, name: str
) -> None:
    """The same message through Django's own backend has the same envelope, header and parts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    server = serve()
    # Not audited: Django's commands are its own.
    with ScriptedServer(honest(), tls=server_tls) as other:
        theirs = smtp.EmailBackend(host="localhost", port=other.port, use_ssl=True)
        configure_email(server)
        counts = [backend.send_messages([BESIDE[name]]) for backend in (theirs, mail.get_connection())]
        accepted = [*other.accepted, *server.accepted]
    assert counts == [len(accepted) // 2] * 2
    if accepted:
        first, second = map(envelope, accepted)
        # We send a message once to each recipient.
        assert (first[0], sorted(set(first[1]))) == second
        left, right = map(parsed, accepted)
        changing = {"message-id", "date"} if name != "own ids" else set()
        assert _header(left, changing) == _header(right, changing)
        assert _parts(left) == _parts(right)


def _header(message: PythonMessage, left_out: set[str]) -> list[tuple[str, str]]:
    # The boundary is random.
    return sorted(
        (name.lower(), message.get_content_type() if name.lower() == "content-type" else str(value))
        for name, value in message.items()
        if name.lower() not in left_out
    )


def test_both_kinds_of_attachment_arrive(serve: Serve, configure_email: Configure) -> None:
    """`MIMEBase`, which Django 6.1 deprecates, and `MIMEPart`, which 5.2 lacks (PITFALLS-1 D6)."""
    server = serve()
    configure_email(server)
    old = MIMEBase("application", "x-old")
    old.set_payload("old")
    message = to()
    with pytest.warns(match="MIMEBase") if django.VERSION >= (6, 0) else nullcontext():
        message.attach(old)
    if django.VERSION >= (6, 0):
        new = PythonMessage()
        new.set_content(b"new", maintype="application", subtype="x-new")
        message.attach(new)
    assert message.send() == 1
    types = [part.get_content_type() for part in parsed(server.accepted[0]).walk()]
    assert types[:3] == ["multipart/mixed", "text/plain", "application/x-old"]
    assert types[3:] == ["application/x-new"] * (django.VERSION >= (6, 0))


def _without_policy(self: EmailMessage) -> Any:
    """Take no policy, as Django 5.2 has it."""
    built = EmailMessage.message(self)
    built["X-Old"] = "yes"
    return built


def test_a_subclass_may_take_no_policy(serve: Serve, configure: Configure) -> None:
    """`message(policy=…)` is of Django 6.0, and subclasses define it without (PITFALLS-1 D6)."""
    server = serve()
    configure(server)
    kind: Any = type("OldMessage", (EmailMessage,), {"message": _without_policy})
    assert kind("Hello", "Text", "me@example.org", ["you@example.net"]).send() == 1
    assert parsed(server.accepted[0])["X-Old"] == "yes"


def test_administrators_and_managers_get_theirs(serve: Serve, configure: Configure, override: Any) -> None:
    """`mail_admins` and `mail_managers` use SERVER_EMAIL and the prefix; without addresses they send nothing."""
    server = serve()
    configure(server)
    people = ["admin@example.org"] if django.VERSION >= (6, 0) else [("Admin", "admin@example.org")]
    mail_admins("none", "Text")
    override(ADMINS=people, MANAGERS=people * 2, SERVER_EMAIL="robot@example.org")
    mail_admins("for admins", "Text", html_message="<p>Text</p>")
    mail_managers("for managers", "Text")
    first, second = map(parsed, server.accepted)
    assert [first["Subject"], second["Subject"]] == ["[Django] for admins", "[Django] for managers"]
    assert first.get_content_type() == "multipart/alternative"
    assert envelope(server.accepted[1]) == ("robot@example.org", ["admin@example.org"])


def test_a_mass_mail_is_counted(serve: Serve, configure: Configure) -> None:
    """`send_mass_mail` returns how many were accepted; an iterator of messages will do."""
    server = serve()
    configure(server)
    rows = [("Hello", "Text", "me@example.org", [f"you{number}@example.net"]) for number in range(20)]
    assert send_mass_mail(rows) == 20
    assert default_connection().send_messages(to(number) for number in range(3)) == 3
    assert len(server.accepted) == 23


def test_nothing_to_send_opens_no_connection(serve: Serve, configure: Configure) -> None:
    """No message, or messages without a recipient, are 0 and no error."""
    server = serve()
    configure(server)
    nobody = EmailMessage("Hello", "Text", "me@example.org", [])
    assert default_connection().send_messages([]) == 0
    assert default_connection().send_messages(None) == 0
    assert default_connection().send_messages([nobody, nobody]) == 0
    assert (nobody.send(), get_result(nobody)) == (0, None)
    assert len(server.connections) == 0
    assert default_connection().send_messages([nobody, to()]) == 1


def refuse(*numbers: int) -> Any:
    """Refuse the recipients with these numbers."""

    def reply(peer: Peer, line: bytes) -> bytes:
        refused = any(b"<you%d@" % number in line for number in numbers)
        return b"550 5.1.1 no such user\r\n" if refused else b"250 2.1.5 ok\r\n"

    return honest(replies={"RCPT": reply})


def test_after_an_error_each_message_says_what_became_of_it(serve: Serve, configure: Configure) -> None:
    """The fourth of many is refused: the count is lost, the results are not (PITFALLS-1 D12)."""
    server = serve(refuse(3))
    configure(server)
    messages = [to(number) for number in range(40)]
    with pytest.raises(RecipientsRefusedError) as caught:
        default_connection().send_messages(messages)
    results = [get_result(message) for message in messages]
    assert result_of(messages[3]).error is caught.value
    sent = {number for number, result in enumerate(results) if result is not None and result.receipt is not None}
    assert {path(each.recipients[0]) for each in server.accepted} == {f"you{number}@example.net" for number in sent}
    # It stops soon after the error: no more than was read ahead.
    assert {0, 1, 2} <= sent <= set(range(20)) - {3}
    assert results[20:] == [None] * 20


def test_silence_sends_the_others(serve: Serve, configure: Configure) -> None:
    """With `fail_silently`, an error is counted as not sent, and each message has its result."""
    server = serve(refuse(3))
    configure(server, fail_silently=True)
    messages = [to(number) for number in range(10)]
    assert backend_that_is_silent(messages) == 9
    assert [result_of(message).outcome for message in messages] == [
        Outcome.REFUSED if number == 3 else Outcome.ACCEPTED for number in range(10)
    ]
    assert len(server.accepted) == 9


def backend_that_is_silent(messages: list[EmailMessage]) -> int:
    """Send with a backend that fails silently."""
    connection = default_connection()
    connection.fail_silently = True
    count: int = connection.send_messages(messages)
    return count


def test_a_message_has_the_result_of_its_last_try(serve: Serve, configure: Configure) -> None:
    """A receipt, then an error, then nothing: no old one is read (PITFALLS-1 D14). It can be copied and pickled."""
    server = serve(refuse(3))
    configure(server)
    message = to()
    message.send()
    result = result_of(message)
    assert result.receipt is not None
    assert (result.receipt.accepted, result.outcome) == (("you0@example.net",), Outcome.ACCEPTED)
    message.to = ["you3@example.net"]
    with pytest.raises(RecipientsRefusedError) as caught:
        message.send()
    result = result_of(message)
    assert (result.receipt, result.error, result.retryable) == (None, caught.value, False)
    for again in (copy.deepcopy(message), pickle.loads(pickle.dumps(message))):  # noqa: S301 -- our own
        assert result_of(again).outcome is Outcome.REFUSED
    message.to = ["nonsense"]
    with pytest.raises(AddressError):
        message.send()
    assert get_result(message) is None


def test_a_second_try_has_the_first_ones_id(serve: Serve, configure: Configure) -> None:
    """After an unknown outcome, the receiver recognises the copy by Message-ID and Date (PITFALLS-1 D8)."""
    seen: list[bytes] = []

    def content(peer: Peer, data: bytes) -> bytes:
        seen.append(data)
        # Garbage: the outcome is unknown.
        return b"250 2.0.0 queued\r\n" if len(seen) > 1 else b"nonsense\r\n"

    server = serve(honest(replies={"CONTENT": content}))
    configure(server)
    message = to()
    with pytest.raises(OutcomeUnknownError):
        message.send()
    assert message.send() == 1
    assert message.send() == 1
    first, second, third = (message_from_bytes(data, policy=policy.default) for data in seen)
    assert (first["Message-ID"], first["Date"]) == (second["Message-ID"], second["Date"])
    # What was accepted is sent anew.
    assert third["Message-ID"] != second["Message-ID"]
    assert server.accepted[0].content == seen[1]


def test_another_message_in_the_same_object_has_its_own_id(serve: Serve, configure: Configure) -> None:
    """A receiver would drop it as a copy of the one that failed."""
    server = serve(refuse(3))
    configure(server)
    message = to(3)
    with pytest.raises(RecipientsRefusedError) as caught:
        message.send()
    message.to = ["you4@example.net"]
    assert message.send() == 1
    assert result_of(message).message_id != caught.value.message_id
    own = to(3, headers={"Message-ID": "<own@example.org>"})
    for message_id in ("<own@example.org>", "<own@example.org>", "<other@example.org>"):
        own.extra_headers["Message-ID"] = message_id
        with pytest.raises(RecipientsRefusedError) as caught:
            own.send()
        assert caught.value.message_id == message_id


@pytest.mark.parametrize("domain", ["faß.example", "βόλος.example", "漢字.example", "xn--fa-hia.example"])
def test_header_and_envelope_name_the_same_domain(serve: Serve, configure: Configure, domain: str) -> None:
    """Django encodes by IDNA 2003, which makes `fass` of `faß`; both are encoded by IDNA 2008 (PITFALLS-1 D10)."""
    server = serve()
    configure(server)
    message = EmailMessage(
        "Hello", "Text", f"Größe <me@{domain}>", [f'"Ada, B" <you@{domain}>', "b@example.net"], reply_to=[f"r@{domain}"]
    )
    assert message.send() == 1
    (accepted,) = server.accepted
    sender, recipients = envelope(accepted)
    arrived = parsed(accepted)
    assert sender.isascii()
    assert (arrived["From"].addresses[0].addr_spec, arrived["From"].addresses[0].display_name) == (sender, "Größe")
    assert sorted(each.addr_spec for each in arrived["To"].addresses) == recipients
    assert arrived["To"].addresses[0].display_name == "Ada, B"
    assert parseaddr(arrived["Reply-To"])[1] == f"r@{sender.partition('@')[2]}"


def test_a_lazy_address_is_in_the_callers_language(serve: Serve, configure: Configure) -> None:
    """The language belongs to the thread that calls, and several threads send (PITFALLS-1 D11)."""
    server = serve()
    configure(server)
    words: Any = lazy(lambda: f"{translation.get_language()}@example.net", str)
    with translation.override("fr"):
        messages = [EmailMessage(words(), words(), words(), [words()]) for _ in range(12)]
        assert default_connection().send_messages(messages) == 12
    assert list(map(envelope, server.accepted)) == [("fr@example.net", ["fr@example.net"])] * 12


@pytest.mark.parametrize(
    "address",
    [
        "root",
        "to@other.example@example.net",
        "to@other.example <to@example.net>",
        "to@example.net, other@example.net",
        "@",
        "to@",
        "@example.net",
        '"evil@example.net\r\nto"@example.net',
        "to\nevil@example.net",
        "Ada <to@example.net> extra",
        "Ada <to@example.net\r\nRCPT TO:<evil@example.net>",
        "Ada\nX <to@example.net>",
        '"' * 5000 + "<to@example.net",
        "Group: to@example.net;",
    ],
    ids=lambda address: repr(address[:20]),
)
def test_a_wrong_address_is_refused(serve: Serve, configure: Configure, address: str) -> None:
    """Before anything is sent, and also where Django is to be silent; the header of Bcc is never built."""
    server = serve()
    configure(server)
    with pytest.raises(AddressError):
        backend_that_is_silent([EmailMessage("Hello", "Text", "me@example.org", bcc=[address])])
    assert len(server.connections) == 0


@pytest.mark.parametrize("field", ["subject", "from_email", "to", "cc", "reply_to", "headers", "name"])
def test_a_line_break_is_a_value_error(serve: Serve, configure: Configure, field: str) -> None:
    """`BadHeaderError` in Django 5.2, `ValueError` since, as forms expect; before the address (PITFALLS-1 D7)."""
    server = serve()
    configure(server)
    break_ = "a@example.org\nBcc: evil@example.net"
    value: Any = {"to": [break_], "cc": [break_], "reply_to": [break_], "headers": {"X-Y": break_}}.get(field, break_)
    name = "X-Y\nBcc: evil@example.net"
    options = {"headers": {name: "x"}} if field == "name" else {field: value}
    message = EmailMessage(**{"from_email": "me@example.org", "to": ["you@example.net"], **options})
    with pytest.raises(ValueError, match=r".") as caught:
        backend_that_is_silent([message])
    if django.VERSION < (6, 0) and field not in {"from_email", "to", "cc", "reply_to", "name"}:
        assert type(caught.value).__name__ == "BadHeaderError"
    assert server.accepted == []


def test_a_part_of_the_recipients_may_be_refused(serve: Serve, configure: Configure) -> None:
    """`partial="allow"` is what Django's own backend does: the others get the message, and the result names them."""
    server = serve(refuse(3))
    configure(server, partial="allow")
    people = ["you3@example.net", "you4@example.net"]
    message = EmailMessage("Hello", "Text", "me@example.org", people)
    assert message.send() == 1
    receipt = result_of(message).receipt
    assert receipt is not None
    assert receipt.refused == ("you3@example.net",)
    configure(server)
    # A new one: in Django 5.2, a message keeps its backend.
    with pytest.raises(RecipientsRefusedError):
        EmailMessage("Hello", "Text", "me@example.org", people).send()
    assert len(server.accepted) == 1


def test_a_mailer_is_lent_for_what_django_cannot_do(serve: Serve, configure: Configure, tmp_path: Path) -> None:
    """It is that of send_mail, with its connections."""
    server = serve(honest())
    configure(server)
    assert to().send() == 1
    with use_mailer() as mailer, SQLiteLedger(tmp_path / "ledger") as ledger:
        envelope = Envelope("me@example.com", ["you@example.net"], b"Subject: x\n\nx\n", key="x")
        results = [list(mailer.send_many([envelope], ledger=ledger)) for _ in range(2)]
    assert [result.from_ledger for (result,) in results] == [False, True]
    assert (len(server.accepted), len(server.connections)) == (2, 1)


def test_another_backend_has_no_mailer_to_lend(override: Any) -> None:
    """The error names the backend that has."""
    locmem = "django.core.mail.backends.locmem.EmailBackend"
    override(**({"MAILERS": {"default": {"BACKEND": locmem}}} if HAS_MAILERS else {"EMAIL_BACKEND": locmem}))
    wrong = pytest.raises(ImproperlyConfigured, match=r"'default' does not have securesmtp\.integrations")
    with wrong, use_mailer():
        pass
