"""The rules on libraries: each form that sends in plaintext or verifies nothing, and each that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from securesmtp._cli.audit.catalogue import RULES
from securesmtp._cli.audit.run import check_file

_AIO = "import aiosmtplib, ssl\n\n\nasync def send(message, host, tls, verify=True, **more):\n    "
_LOG = "import logging.handlers\n\n\ndef add(host, user, password, tls=None):\n    "
_YAG = "import ssl, yagmail\n\n\ndef send(host, tls, options):\n    "
_RED = "import smtplib, ssl\nfrom redmail import EmailSender, gmail, send_email\n\n\ndef send(host, tls):\n    "
_EMAILS = "import emails\n\n\ndef send(host, options, tls):\n    m = emails.html(html='x')\n    "


def _check(folder: Path, source: str) -> list[str]:
    """Return the rule, the level and the line of each finding of the library's rules."""
    path = folder / "mail.py"
    path.write_text(source)
    report = check_file(str(path), frozenset(RULES))
    assert not report.not_checked
    return [f"{f.finding.rule} {f.finding.level.name.lower()} {f.finding.line}" for f in report.findings]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("await aiosmtplib.send(message, hostname=host)", ["SMT612 warning 5"]),
        ("await aiosmtplib.send(message, hostname=host, port=587, start_tls=None)", ["SMT612 warning 5"]),
        ("await aiosmtplib.send(message, hostname=host, start_tls=False)", ["SMT611 error 5"]),
        ("await aiosmtplib.send(message, hostname=host, start_tls=False, use_tls=tls)", ["SMT611 note 5"]),
        ("await aiosmtplib.send(message, hostname=host, start_tls=tls)", ["SMT611 note 5"]),
        ("await aiosmtplib.send(message, hostname=host, use_tls=True, validate_certs=False)", ["SMT613 error 5"]),
        ("await aiosmtplib.send(message, hostname=host, use_tls=True, validate_certs=verify)", ["SMT613 note 5"]),
        (
            "await aiosmtplib.send(message, hostname=host, use_tls=True, tls_context=ssl._create_unverified_context())",
            ["SMT202 error 5"],
        ),
        (
            (
                "smtp = aiosmtplib.SMTP(hostname=host, start_tls=False)\n    await smtp.connect()\n"
                "    await smtp.login('u', tls)"
            ),
            ["SMT611 error 7"],
        ),
        (
            "async with aiosmtplib.SMTP(hostname=host, start_tls=False) as s:\n        await s.send_message(message)",
            ["SMT611 error 6"],
        ),
        ("aiosmtplib.SMTP(hostname=host, username='u', password=tls, start_tls=False)", ["SMT611 error 5"]),
        ("smtp = aiosmtplib.SMTP()\n    await smtp.connect(hostname=host, port=25)", ["SMT612 warning 6"]),
        (
            "smtp = aiosmtplib.SMTP(hostname=host)\n    await smtp.connect(start_tls=True, validate_certs=False)",
            ["SMT613 error 6"],
        ),
        (
            "smtp = aiosmtplib.SMTP(hostname=host)\n    await smtp.connect(start_tls=False, username='u')",
            ["SMT611 error 6"],
        ),
        (
            "smtp = aiosmtplib.SMTP(hostname=host, use_tls=True)\n    await smtp.login('u', 'k8Jx-11-Passwort')",
            ["SMT301 error 6"],
        ),
        (
            "await aiosmtplib.send(message, hostname=host, use_tls=True, password='k8Jx-11-Passwort')",
            ["SMT301 error 5"],
        ),
        (
            (
                "for _ in range(3):\n        try:\n"
                "            await aiosmtplib.send(message, hostname=host, use_tls=True)\n"
                "            return\n        except Exception:\n            pass"
            ),
            ["SMT401 warning 9"],
        ),
        (
            (
                "smtp = aiosmtplib.SMTP(hostname=host, start_tls=False)\n    await smtp.connect()\n"
                "    await smtp.starttls(validate_certs=False)\n    await smtp.login('u', tls)"
            ),
            ["SMT613 error 7"],
        ),
    ],
)
def test_insecure_aiosmtplib_is_reported(tmp_path: Path, code: str, expected: list[str]) -> None:
    """Plaintext, STARTTLS that the server may leave out, and certificates that are not verified."""
    assert _check(tmp_path, _AIO + code) == expected


@pytest.mark.parametrize(
    "code",
    [
        "await aiosmtplib.send(message)",
        "await aiosmtplib.send(message, hostname='localhost', port=25)",
        "await aiosmtplib.send(message, hostname='127.0.0.1', start_tls=False)",
        "await aiosmtplib.send(message, hostname=host, use_tls=True)",
        "await aiosmtplib.send(message, hostname=host, start_tls=True, validate_certs=True)",
        "await aiosmtplib.send(message, hostname=host, use_tls=True, tls_context=ssl.create_default_context())",
        "await aiosmtplib.send(message, hostname=host, **more)",
        "await aiosmtplib.send(message, hostname=host, start_tls=False)  # noqa: SMT611",
        (
            "smtp = aiosmtplib.SMTP(hostname=host, start_tls=False)\n    await smtp.connect()\n"
            "    await smtp.starttls()\n    await smtp.login('u', tls)"
        ),
        "smtp = aiosmtplib.SMTP(start_tls=False)\n    await smtp.connect()\n    await smtp.login('u', tls)",
        "smtp = aiosmtplib.SMTP(hostname=host, use_tls=True)\n    await smtp.connect(timeout=3)",
        "smtp = aiosmtplib.SMTP(use_tls=True)\n    await smtp.connect(hostname=host)\n    await smtp.login('u', tls)",
        "smtp = aiosmtplib.SMTP()\n    await smtp.connect(use_tls=False)",
        "smtp = aiosmtplib.SMTP(**more)\n    await smtp.connect(hostname=host)",
        "await tls.SMTP(hostname=host)",
    ],
)
def test_secure_aiosmtplib_is_not_reported(tmp_path: Path, code: str) -> None:
    """TLS that must succeed, this machine, and options that are not in the code."""
    assert _check(tmp_path, _AIO + code) == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("logging.handlers.SMTPHandler(host, 'a', ['b'], 'x')", ["SMT501 error 5"]),
        ("logging.handlers.SMTPHandler((host, 587), 'a', ['b'], 'x', (user, password))", ["SMT501 error 5"]),
        ("logging.handlers.SMTPHandler(host, 'a', ['b'], 'x', secure=())", ["SMT501 error 5"]),
        ("logging.handlers.SMTPHandler(host, 'a', ['b'], 'x', (user, password), ())", ["SMT502 error 5"]),
        (
            (
                "secure = None\n    if tls:\n        secure = ()\n"
                "    logging.handlers.SMTPHandler(mailhost=(host, 25), fromaddr='a', toaddrs='b', subject='x',\n"
                "        credentials=(user, password), secure=secure)"
            ),
            ["SMT501 warning 8", "SMT502 error 8"],
        ),
        (
            "logging.handlers.SMTPHandler(host, 'a', ['b'], 'x', (user, 'tr0ub4dor&3'), ())",
            ["SMT502 error 5", "SMT301 error 5"],
        ),
        ("logging.handlers.SMTPHandler(('localhost', 25), 'a', ['b'], 'x')", []),
        ("logging.handlers.SMTPHandler('127.0.0.1', 'a', ['b'], 'x', (user, password))", []),
        ("logging.handlers.SMTPHandler(*tls)", []),
        ("logging.handlers.SysLogHandler(host)", []),
        (
            (
                "class Own(logging.handlers.SMTPHandler):\n        def emit(self, record):\n            pass\n\n"
                "    Own(host, 'a', ['b'], 'x')"
            ),
            [],
        ),
        (
            "class Own(logging.handlers.SMTPHandler):\n        pass\n\n    Own(host, 'a', ['b'], 'x')",
            ["SMT501 error 8"],
        ),
    ],
)
def test_the_constructor_of_smtp_handler(tmp_path: Path, code: str, expected: list[str]) -> None:
    """TLS needs credentials and `secure`, and even then verifies nothing. A subclass may send by itself."""
    assert _check(tmp_path, _LOG + code) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("yagmail.SMTP('u', tls)", ["SMT621 error 5"]),
        ("yagmail.Client('u', tls, host)", ["SMT621 error 5"]),
        ("yagmail.SMTP('u', tls, host, smtp_ssl=False)", ["SMT621 error 5"]),
        ("yagmail.SMTP('u', tls, host, 587, True, False)", ["SMT621 error 5"]),
        ("yagmail.SMTP('u', tls, host, smtp_ssl=False, smtp_starttls={})", ["SMT622 error 5"]),
        ("yagmail.SMTP('u', tls, host, smtp_ssl=False, smtp_starttls={'keyfile': tls})", ["SMT621 error 5"]),
        ("yagmail.SMTP('u', tls, host, smtp_ssl=False, smtp_starttls=False)", ["SMT622 error 5"]),
        ("yagmail.SMTP('u', tls, context=ssl._create_unverified_context())", ["SMT202 error 5"]),
        ("yagmail.SMTP('u', tls, context=ssl.create_default_context())", []),
        ("yagmail.SMTP('u', tls, smtp_ssl=False, smtp_starttls={'context': ssl.create_default_context()})", []),
        ("yagmail.SMTP('u', tls, smtp_ssl=False, smtp_starttls=options)", []),
        ("yagmail.SMTP('u', tls, **options)", []),
        ("yagmail.SMTP('u', tls, 'localhost', smtp_ssl=False, smtp_starttls=False)", []),
    ],
)
def test_yagmail(tmp_path: Path, code: str, expected: list[str]) -> None:
    """What it passes on to `smtplib` decides."""
    assert _check(tmp_path, _YAG + code) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("EmailSender(host, 587)", ["SMT631 error 6"]),
        ("EmailSender(host, 465, cls_smtp=smtplib.SMTP_SSL, use_starttls=False)", ["SMT631 error 6"]),
        ("EmailSender(host, 25, use_starttls=False)", ["SMT632 error 6"]),
        ("EmailSender(host, 25, use_starttls=tls)", ["SMT631 error 6", "SMT632 note 6"]),
        ("gmail.send(subject='x')", ["SMT631 error 6"]),
        ("send_email(host=host, port=587)", ["SMT631 error 6"]),
        (
            "EmailSender(host, cls_smtp=smtplib.SMTP_SSL, use_starttls=False, context=ssl.create_default_context())",
            [],
        ),
        ("EmailSender(host, 465, cls_smtp=tls, use_starttls=False)", []),
        ("EmailSender('localhost', 25, use_starttls=False)", []),
    ],
)
def test_red_mail(tmp_path: Path, code: str, expected: list[str]) -> None:
    """STARTTLS never has a context; `SMTP_SSL` may have one."""
    assert _check(tmp_path, _RED + code) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("m.send(to='a', smtp={'host': host, 'port': 25})", ["SMT642 error 6"]),
        ("m.send(to='a', smtp={'host': host, 'ssl': True, 'user': 'u'})", ["SMT641 error 6"]),
        ("m.send(to='a', smtp={'host': host, 'tls': True})", ["SMT641 error 6"]),
        ("m.send(to='a', smtp={'host': host, 'tls': tls})", ["SMT641 error 6", "SMT642 note 6"]),
        ("m.send(to='a', smtp={'host': 'localhost', 'port': 25})", []),
        ("m.send(to='a')", []),
        ("m.send(to='a', smtp=options)", []),
    ],
)
def test_emails(tmp_path: Path, code: str, expected: list[str]) -> None:
    """`send` takes no context."""
    assert _check(tmp_path, _EMAILS + code) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from flask_mail import Mail\nmail = Mail(app)\n", ["SMT513 error 2"]),
        ("import flask_mail as f\n\ndef make(app):\n    return f.Mail(app)\n", ["SMT513 error 4"]),
        ("from flask_mailman import Mail\nmail = Mail()\n", ["SMT513 warning 2"]),
        ("from flask_mailman import Mail\nmail = Mail()\napp.config['MAIL_USE_TLS'] = True\n", ["SMT513 error 2"]),
        ("from flask_mailman import Mail\nmail = Mail()\napp.config['MAIL_USE_SSL'] = True\n", []),
        ("from flask_mail import Mail\napp.config.update(MAIL_SERVER='localhost')\nmail = Mail(app)\n", []),
        ("from flask_mail import Message\n", []),
    ],
)
def test_flask_extensions(tmp_path: Path, source: str, expected: list[str]) -> None:
    """Flask-Mail verifies nothing; Flask-Mailman verifies with MAIL_USE_SSL alone."""
    assert _check(tmp_path, source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('EMAIL_HOST_PASSWORD = "tr0ub4dor&3"\n', ["SMT301 error 1"]),
        ('class C:\n    MAIL_USERNAME = "u"\n    MAIL_PASSWORD = "tr0ub4dor&3"\n', ["SMT301 error 3"]),
        (
            'MAILERS = {"default": {"OPTIONS": {"host": H, "use_ssl": True,\n"password": "tr0ub4dor&3"}}}',
            ["SMT301 error 2"],
        ),
        ('ConnectionConfig(MAIL_PASSWORD="tr0ub4dor&3", MAIL_STARTTLS=True)', ["SMT301 error 1"]),
        ('EMAIL_HOST_PASSWORD = ""\n', []),
        ('EMAIL_HOST_PASSWORD = "***"\n', []),
        ('EMAIL_HOST_PASSWORD = "your-password"\n', []),
        ('EMAIL_HOST_PASSWORD = env("PASSWORD", default="tr0ub4dor&3")\n', []),
        ('MAIL_PASSWORD = "tr0ub4dor&3"\n', []),
    ],
)
def test_passwords_in_settings(tmp_path: Path, source: str, expected: list[str]) -> None:
    """A literal that is not a placeholder, under a key that is a mail library's."""
    assert _check(tmp_path, source) == expected


_DJANGO = """\
from django.core.mail import get_connection, send_mail
from django.core.mail.backends.smtp import EmailBackend


"""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("get_connection(host='h.example', use_tls=False)", ["SMT511 error 6"]),
        ("EmailBackend('h.example', 25, 'u', secret, False)", ["SMT511 error 6"]),
        ("get_connection(host='h.example', use_tls=tls)", ["SMT511 note 6"]),
        ("get_connection(host='h.example', password='S3cretMail!')", ["SMT301 error 6"]),
        ("EmailBackend('h.example', 25, 'u', 'S3cretMail!', True)", ["SMT301 error 6"]),
        ("send_mail('s', 'b', 'a@b', ['c@d'], auth_user='u', auth_password='S3cretMail!')", ["SMT301 error 6"]),
        ("get_connection(host='h.example', use_tls=False, use_ssl=True)", []),
        ("get_connection(host='localhost', use_tls=False)", []),
        ("get_connection(host='h.example')", []),
        ("get_connection(host='h.example', use_tls=False, **more)", []),
        ("get_connection('django.core.mail.backends.console.EmailBackend', host='h.example', use_tls=False)", []),
        ("send_mail('s', 'b', 'a@b', ['c@d'], auth_user='u', auth_password=secret)", []),
    ],
)
def test_calls_of_django(tmp_path: Path, code: str, expected: list[str]) -> None:
    """What is not given comes from the settings; what is given counts."""
    assert _check(tmp_path, f"{_DJANGO}def send(secret, tls, more):\n    {code}\n") == expected
