"""`securesmtp sendmail`, called as other programs call sendmail, against a real server with TLS."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.send.conftest import Run
from conftest import Serve
from scripted import honest
from securesmtp.testing import FaultName, MailServer

MESSAGE = b"From: me@example.org\nTo: to@example.org\nSubject: hello\n\nhello\n"
# As cronie and Debian's cron write it (do_command.c), for a command with a character that is not ASCII.
CRON = (
    "From: root (Cron Daemon)\nTo: user\nSubject: Cron <user@host> echo Grüße; sleep 1\n"
    "Content-Type: text/plain; charset=UTF-8\nAuto-Submitted: auto-generated\n"
    "X-Cron-Env: <SHELL=/bin/sh>\nX-Cron-Env: <API_TOKEN=geheim>\n\nGrüße\n"
).encode()


@pytest.mark.parametrize(
    "options",
    [
        ["-i", "-FCronDaemon", "-B8BITMIME", "-oem"],
        ["-i", "-odi", "-oem", "-oi", "-F", "CronDaemon"],
        ["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-f", "root@example.org"],
        ["-oi", "-B", "8BITMIME", "-em", "-m", "-n", "-U", "-G", "-v"],
        ["-Am", "-Ac", "-h", "3", "-h3", "-L", "label", "-Llabel", "-bm"],
        ["-N", "failure,delay", "-Nnever", "-R", "hdrs", "-V", "id", "-O", "Timeout=1", "-o7", "-o8", "-p", "x"],
        ["-rroot@example.org", "-o", "i"],
    ],
    ids=" ".join,
)
def test_all_options_of_sendmail_are_accepted(server: MailServer, run: Run, options: list[str]) -> None:
    """Joined and separate; cron and PHP stopped where one was missing (PITFALLS L1)."""
    done = run("sendmail", *options, "to@example.org", data=MESSAGE)
    assert (done.code, done.err) == (0, "")
    assert (done.out == "") == ("-v" not in options)
    (received,) = server.messages
    assert received.recipients == ("to@example.org",)


@pytest.mark.parametrize("option", ["-bs", "-bd", "-bD", "-bi", "-bp", "-bv", "-bl", "-q", "-q30m", "-qIabc"])
def test_what_needs_a_queue_or_a_server_is_refused(server: MailServer, run: Run, option: str) -> None:
    """With a sentence, and 64 (PITFALLS L1)."""
    done = run("sendmail", option, "to@example.org", data=MESSAGE)
    assert done.code == 64
    assert "is not possible" in done.err
    assert "Hint:" in done.err
    assert not server.messages


@pytest.mark.parametrize(
    "options", [["-X{}"], ["-X", "{}"], ["-C{}"], ["-C", "{}"], ["-oA{}"], ["-oQ{}"], ["-o", "Q{}"]]
)
def test_options_that_name_files_open_none(server: MailServer, run: Run, tmp_path: Path, options: list[str]) -> None:
    """A stranger's address as an argument must not write a file (PITFALLS L2)."""
    named = [option.format(tmp_path / "file") for option in options]
    # A FIFO would block who opens it.
    assert run("sendmail", *named, "to@example.org", data=MESSAGE).code == 0
    assert not list(tmp_path.iterdir())
    assert len(server.messages) == 1


def test_two_hyphens_end_the_options(server: MailServer, run: Run) -> None:
    """Senders and recipients may begin with one (PITFALLS L2)."""
    done = run("sendmail", "-f", "-Xme@example.org", "--", "-oQ/tmp@example.org", "-t", data=MESSAGE)
    assert done.code == 65
    assert "'-t'" in done.err
    assert run("sendmail", "-f", "-Xme@example.org", "--", "-oQ/tmp@example.org", data=MESSAGE).code == 0
    (received,) = server.messages
    assert received.mail_from == "-Xme@example.org"
    assert received.recipients == ("-oQ/tmp@example.org",)


@pytest.mark.parametrize(
    "mapped", [[], ["--map", "user=ops@example.net", "--map", "root=cron@example.net"]], ids=["domain", "map"]
)
def test_cron_is_served(server: MailServer, run: Run, mapped: list[str]) -> None:
    """Debian's call: a name as recipient, and fields that servers refuse (PITFALLS L3, L4)."""
    done = run(
        "sendmail", "--domain", "example.org", *mapped, "-i", "-FCronDaemon", "-B8BITMIME", "-oem", "user", data=CRON
    )
    assert (done.code, done.out, done.err) == (0, "", "")
    (received,) = server.messages
    sender, recipient = ("cron@example.net", "ops@example.net") if mapped else ("root@example.org", "user@example.org")
    assert (received.mail_from, received.recipients) == (sender, (recipient,))
    head, _, body = received.content.partition(b"\r\n\r\n")
    assert head.isascii()
    assert head.startswith(
        f"From: {sender} (Cron Daemon)\r\nTo: {recipient}\r\nSubject: Cron <user@host> echo ".encode()
    )
    assert received.subject == "Cron <user@host> echo Grüße; sleep 1"
    assert received.message["MIME-Version"] == "1.0"
    assert received.text == "Grüße\n"
    assert body == "Grüße\r\n".encode()


def test_cronie_is_served(server: MailServer, run: Run) -> None:
    """Its call: the recipients of the header, and a sender."""
    done = run(
        "sendmail", "--domain=example.org", "-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root", data=CRON
    )
    assert done.code == 0
    (received,) = server.messages
    assert (received.mail_from, received.recipients) == ("root@example.org", ("user@example.org",))


@pytest.mark.parametrize(
    "arguments", [["user"], ["-t"], ["-f", "root", "to@example.org"], ["to@example.org"]], ids=" ".join
)
def test_a_name_without_domain_is_refused_with_the_way_out(server: MailServer, run: Run, arguments: list[str]) -> None:
    """In the arguments, in To, in -f and in From (PITFALLS L3)."""
    done = run("sendmail", "-i", *arguments, data=CRON)
    assert done.code == 65
    assert "--domain example.org" in done.err
    assert "--map root=ops@example.org" in done.err
    assert not server.messages


def test_fields_can_be_left_out(server: MailServer, run: Run) -> None:
    """The environment of a cron job may hold secrets (PITFALLS L4)."""
    assert run("sendmail", "--domain", "example.org", "--remove-field", "x-cron-env", "user", data=CRON).code == 0
    (received,) = server.messages
    assert b"geheim" not in received.content
    assert b"Auto-Submitted" in received.content


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a: b\n\nx\ny\n", b"x\r\ny\r\n"),
        (b"a: b\r\n\r\nx\r\ny\r\n", b"x\r\ny\r\n"),
        (b"a: b\r\n\r\nx\ny\r\n", b"x\r\ny\r\n"),
        (b"a: b\n\r\nx\r\r\ny", b"x\r\ny\r\n"),
        (b"\xef\xbb\xbfa: b\n\nx\ny", b"x\r\ny\r\n"),
        (b"From me@example.org Fri Nov 27 12:00:00 2026\na: b\n\nFrom x\n>From y\n", b"From x\r\n>From y\r\n"),
        (b"a: b\n\nx\n.\n..\n.y\n", b"x\r\n.\r\n..\r\n.y\r\n"),
        (b"a: b\n\nx\n\n\n", b"x\r\n\r\n\r\n"),
        (b"only text\n.\n", b"only text\r\n.\r\n"),
        (b"\nonly text\n", b"only text\r\n"),
        (b"a: b\n", b""),
        ("a: b\n\nGrüße\n".encode("latin-1"), b"Gr\xfc\xdfe\r\n"),
    ],
    ids=["LF", "CRLF", "both", "CR CR LF", "byte order mark", "mbox", "dots", "empty lines", "no header",
         "empty header", "no body", "8 bit"],
)  # fmt: skip
def test_line_ends_become_crlf_and_nothing_else_changes(
    server: MailServer, run: Run, data: bytes, expected: bytes
) -> None:
    """PITFALLS L5, L6."""
    done = run("sendmail", "-f", "me@example.org", "to@example.org", data=data)
    assert (done.code, done.err) == (0, "")
    (received,) = server.messages
    assert received.content.partition(b"\r\n\r\n")[2] == expected
    assert (b"a: b\r\n" in received.content) == (b"a: b" in data)
    assert received.message["From"] == "me@example.org"


def test_recipients_of_the_header_are_added_to_those_of_the_arguments(server: MailServer, run: Run) -> None:
    """Each address once; Bcc gets it and is in no copy (PITFALLS L7)."""
    data = b"From: me@example.org\nTo: a@example.org, B <b@example.org>\nCc: g: c@example.org;\n"
    data += b"Bcc: hidden@example.org,\n e@example.org\n\nx\n"
    assert run("sendmail", "-ti", "b@example.org", "f@example.org", data=data).code == 0
    (received,) = server.messages
    assert received.recipients == tuple(f"{name}@example.org" for name in ("b", "f", "a", "c", "hidden", "e"))
    # With the colon: a random Message-ID may have the three digits.
    assert b"bcc:" not in received.content.lower()
    # Never a short name of hexadecimal digits: the random Message-ID may end in it.
    assert b"hidden" not in received.content


def test_mutt_is_served(server: MailServer, run: Run) -> None:
    """Its arguments with $use_envelope_from, $use_8bitmime and $dsn_notify."""
    options = ("-oem", "-oi", "-f", "bounce@example.org", "-N", "failure", "-R", "hdrs", "-B8BITMIME", "--")
    assert run("sendmail", *options, "a@example.org", "b@example.org", data=MESSAGE) == (0, "", "")
    (received,) = server.messages
    assert (received.mail_from, received.recipients) == ("bounce@example.org", ("a@example.org", "b@example.org"))


@pytest.mark.parametrize(
    ("options", "mail", "rcpt"),
    [
        (["-N", "failure"], {}, {"NOTIFY": "FAILURE"}),
        (["-Nsuccess,delay"], {}, {"NOTIFY": "SUCCESS,DELAY"}),
        (["-N", "NEVER", "-R", "HDRS"], {"RET": "HDRS"}, {"NOTIFY": "NEVER"}),
        (
            ["-N", "delay, failure", "-Rfull", "-Va 7+"],
            {"RET": "FULL", "ENVID": "a+207+2B"},
            {"NOTIFY": "FAILURE,DELAY"},
        ),
        (["-V", "7", "-N", "never", "-Nsuccess"], {"ENVID": "7"}, {"NOTIFY": "SUCCESS"}),
        ([], {}, {}),
    ],
    ids=str,
)
def test_reports_are_asked_for(
    server: MailServer, run: Run, options: list[str], mail: dict[str, str], rcpt: dict[str, str]
) -> None:
    """As by Postfix's sendmail: joined or separate, in upper or lower case, and the last one counts."""
    assert run("sendmail", *options, "to@example.org", data=MESSAGE) == (0, "", "")
    (received,) = server.messages
    assert {name: each for name, each in received.mail_parameters.items() if name in {"RET", "ENVID"}} == mail
    assert received.recipient_parameters == {"to@example.org": rcpt}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["-N", "always"], "notify has 'always', which is no condition"),
        (["-N", "never,failure"], 'notify has "never" together with other conditions'),
        (["-N", ""], "notify has no condition"),
        (["-R", "all"], "ret is 'all'"),
        (["-V", "x" * 95], "envid has more than 94 characters"),
        (["-V", "a\nb"], "envid is not printable ASCII text"),
        (["-V", ""], "envid is not printable ASCII text"),
    ],
    ids=str,
)
def test_wrong_reports_are_refused(server: MailServer, run: Run, options: list[str], error: str) -> None:
    """With 64, as by Postfix, before the message is read."""
    done = run("sendmail", *options, "to@example.org", data=MESSAGE)
    assert done.code == 64
    assert error in " ".join(done.err.split())
    assert not server.messages


def test_a_server_without_dsn_gets_the_message(
    run: Run, serve: Serve, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked for, and -v says so."""
    plain = serve(honest())
    monkeypatch.setenv("SMTP_URL", f"smtps://localhost:{plain.port}?ca_file={ca_file}")
    done = run("sendmail", "-v", "-N", "success", "to@example.org", data=MESSAGE)
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("; without DSN, which the server does not offer\n")
    assert b"NOTIFY" not in plain.secret


def test_bcc_is_removed_without_t_too(server: MailServer, run: Run) -> None:
    """Mutt leaves it in with $write_bcc (PITFALLS L7)."""
    data = b"bcc: secret@example.org\nResent-Bcc: two@example.org\n" + MESSAGE
    assert run("sendmail", "-oem", "-oi", "-f", "me@example.org", "--", "to@example.org", data=data).code == 0
    (received,) = server.messages
    assert received.recipients == ("to@example.org",)
    assert b"secret" not in received.content
    assert b"two@" not in received.content


@pytest.mark.parametrize(
    "field",
    ["Bcc: a@b@c", "Cc: Ada <ada@example.org", "To: a b c@example.org", "Bcc: x@example.org; y@example.org", "Cc: <>"],
)
def test_an_unreadable_address_field_sends_nothing(server: MailServer, run: Run, field: str) -> None:
    """PITFALLS L8."""
    done = run("sendmail", "-t", data=field.encode() + b"\n" + MESSAGE)
    assert done.code == 65
    assert field.partition(":")[0] in done.err
    assert not server.messages


@pytest.mark.parametrize("field", [b"To: undisclosed-recipients:;", b"Cc: list:;", b"Subject: none"])
def test_groups_and_a_missing_to_are_left_as_they_are(server: MailServer, run: Run, field: bytes) -> None:
    """No To is invented (PITFALLS L8)."""
    assert run("sendmail", "-t", data=b"From: me@example.org\n" + field + b"\nBcc: a@example.org\n\nx\n").code == 0
    (received,) = server.messages
    assert received.recipients == ("a@example.org",)
    assert field + b"\r\n" in received.content
    assert (b"To:" in received.content) == field.startswith(b"To")


def test_a_message_without_recipients_is_not_sent(server: MailServer, run: Run) -> None:
    """With and without -t."""
    assert run("sendmail", data=MESSAGE).code == 65
    assert run("sendmail", "-t", data=b"From: me@example.org\n\nx\n").code == 65
    assert not server.messages


def test_a_line_that_is_no_field_is_refused(server: MailServer, run: Run) -> None:
    """A Bcc after it would be sent as text."""
    done = run("sendmail", "to@example.org", data=b"From: me@example.org\nnot a field\nBcc: x@example.org\n\nx\n")
    assert done.code == 65
    assert "line 2" in done.err
    assert not server.messages


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["-F", "Cron Daemon"], "Cron Daemon <me@example.org>"),
        (["-FJürgen"], "=?utf-8?q?J=C3=BCrgen?= <me@example.org>"),
        ([], "From the environment <me@example.org>"),
    ],
)
def test_a_full_name_counts_only_without_a_from(
    server: MailServer, run: Run, monkeypatch: pytest.MonkeyPatch, options: list[str], name: str
) -> None:
    """-F comes before the variable NAME (PITFALLS L11)."""
    monkeypatch.setenv("NAME", "From the environment")
    assert run("sendmail", *options, "-fme@example.org", "to@example.org", data=b"Subject: x\n\nx\n").code == 0
    assert run("sendmail", *options, "-fme@example.org", "to@example.org", data=MESSAGE).code == 0
    first, second = server.messages
    assert f"\r\nFrom: {name}\r\n".encode() in first.content
    assert second.content.count(b"From:") == 1
    assert second.message["From"] == "me@example.org"


def test_there_is_one_sender(server: MailServer, run: Run) -> None:
    """Not a list of them."""
    done = run("sendmail", "-f", "a@example.org, b@example.org", "to@example.org", data=MESSAGE)
    assert done.code == 65
    assert "the sender has 2 addresses, not one" in done.err
    assert not server.messages


@pytest.mark.parametrize("sender", ["", "<>", " "])
def test_the_null_sender(server: MailServer, run: Run, sender: str) -> None:
    """Of notifications."""
    assert run("sendmail", "-f", sender, "to@example.org", data=MESSAGE).code == 0
    (received,) = server.messages
    assert received.mail_from == ""


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"10%\r50%\r100%\n", b"10%\r50%\r100%\n"),
        (b"a\0b\n", b"a\0b\n"),
        (b"x" * 5000 + b"\n.\n", b"x" * 5000 + b"\n.\n"),
        ("ü\rx\n".encode(), "ü\rx\n".encode()),
    ],
    ids=["CR", "NUL", "long line", "8 bit"],
)
@pytest.mark.parametrize(
    "header",
    [b"", b"Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n"],
    ids=["plain", "MIME"],
)
def test_a_text_that_smtp_cannot_carry_is_encoded(
    server: MailServer, run: Run, body: bytes, text: bytes, header: bytes
) -> None:
    """Progress bars and long lines of cron jobs must not be lost."""
    assert run("sendmail", "to@example.org", data=b"From: me@example.org\n" + header + b"\n" + body).code == 0
    (received,) = server.messages
    payload = received.message.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert payload.replace(b"\r\n", b"\n") == text
    if not text.isascii() or header:
        assert received.message.get_content_charset() == "utf-8"


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Type: application/pdf",
        b"Content-Transfer-Encoding: base64",
        b"DKIM-Signature: v=1",
        b"Content-Type: multipart/mixed; boundary=x",
    ],
)
def test_what_is_no_plain_text_is_refused_instead(server: MailServer, run: Run, field: bytes) -> None:
    """It would be another message."""
    done = run("sendmail", "to@example.org", data=field + b"\n" + MESSAGE + b"x" * 1000)
    assert done.code == 65
    assert "longer than 998 bytes" in done.err
    assert not server.messages


@pytest.mark.parametrize(("code", "options"), [(75, []), (69, ["--tempfail-exit", "69"])])
def test_the_code_of_temporary_failures_can_be_another(
    server: MailServer, run: Run, code: int, options: list[str]
) -> None:
    """PHP 8.5 takes 75 for success (PITFALLS L10)."""
    server.fault = "greylists"
    done = run("sendmail", *options, "to@example.org", data=MESSAGE)
    assert done.code == code
    assert "securesmtp: refused:" in done.err


@pytest.mark.parametrize("wrong", ["root", "=a@b.example", "root=ops", "root:ops@example.org"])
def test_a_map_is_a_name_and_an_address(server: MailServer, run: Run, wrong: str) -> None:
    """Anything else is a usage error."""
    assert run("sendmail", "--map", wrong, "to@example.org", data=MESSAGE).code == 64


def test_raw_bytes_of_an_unknown_charset_stay_what_they_are(server: MailServer, run: Run) -> None:
    """In a field, as a word of an unknown charset (PITFALLS L4)."""
    assert (
        run(
            "sendmail", "to@example.org", data=b"Subject: Gr\xfc\xdfe\n" + MESSAGE.replace(b"Subject: hello\n", b"")
        ).code
        == 0
    )
    (received,) = server.messages
    assert b"Subject: =?unknown-8bit?q?Gr=FC=DFe?=\r\n" in received.content


@pytest.mark.parametrize(
    "arguments",
    [
        ["--host", "evil.example"],
        ["--url=smtps://evil.example"],
        ["--password-command", "touch pwned"],
        ["--password-file", "/etc/passwd"],
        ["--password", "x"],
        ["--ca-file", "/etc/passwd"],
        ["-t", "--dry-run"],
        ["-i", "--map", "root=evil@example.org"],
        ["a@example.org", "--remove-field=Received"],
        ["--domain", "example.org", "-f", "me@example.org", "--domain", "evil.example"],
    ],
    ids=" ".join,
)
def test_a_stranger_cannot_give_options(server: MailServer, run: Run, arguments: list[str]) -> None:
    """Not the server, no program, no file; and our own options only before all others (PITFALLS L2)."""
    done = run("sendmail", *arguments, "to@example.org", data=MESSAGE)
    assert (done.code, done.out) == (64, "")
    assert not server.messages


def test_after_two_hyphens_all_are_recipients(server: MailServer, run: Run) -> None:
    """Even those that look like our options."""
    done = run("sendmail", "--domain", "example.org", "--", "--dry-run", "--map=x@example.org", data=MESSAGE)
    assert done.code == 0
    (received,) = server.messages
    assert received.recipients == ("--dry-run@example.org", "--map=x@example.org")


def test_without_a_server_the_variables_are_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """EX_CONFIG."""
    for name in [name for name in os.environ if name.startswith("SMTP_")]:
        monkeypatch.delenv(name)
    done = run("sendmail", "to@example.org", data=MESSAGE)
    assert done.code == 78
    assert "Hint: set SMTP_HOST or SMTP_URL (" in done.err


def test_hints_name_variables(server: MailServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no option for the server: `send` would say --starttls here."""
    with MailServer("starttls", login=None) as other:
        for name, value in other.env().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SMTP_TLS", "implicit")
        for name in ("SMTP_USERNAME", "SMTP_PASSWORD"):
            monkeypatch.delenv(name)
        done = run("sendmail", "to@example.org", data=MESSAGE)
    assert done.code == 76
    assert "Hint: set SMTP_TLS=starttls (usually port 587), or" in done.err
    assert not server.messages


@pytest.mark.parametrize(
    ("fault", "hint"),
    [("untrusted", "Hint: SMTP_CA_FILE has '"), ("wrong_name", "use one of its names as SMTP_HOST (")],
)
def test_hints_on_certificates_name_variables(server: MailServer, run: Run, fault: FaultName, hint: str) -> None:
    """Not the arguments of a program, nor the options of `send`."""
    server.fault = fault
    done = run("sendmail", "to@example.org", data=MESSAGE)
    assert done.code == 76
    assert hint in done.err
    assert "ca_file" not in done.err
