"""Settings of Django, Flask and fastapi-mail, and handlers of logging: which are reported, and how certain that is."""

from __future__ import annotations

from pathlib import Path

import pytest

from securesmtp._cli.audit.catalogue import RULES
from securesmtp._cli.audit.run import check_file

_HOST = 'EMAIL_HOST = "smtp.example.org"\n'
_LOGIN = f'{_HOST}EMAIL_HOST_PASSWORD = env("PASSWORD")\n'
_SERVER = 'MAIL_SERVER = "smtp.example.org"\n'
_BACKEND = "django.core.mail.backends.smtp.EmailBackend"


def _check(folder: Path, source: str, name: str = "settings.py") -> list[str]:
    """Return the rule, the level and the line of each finding."""
    path = folder / name
    path.write_text(source)
    report = check_file(str(path), frozenset(RULES))
    assert not report.not_checked
    return [f"{f.finding.rule} {f.finding.level.name.lower()} {f.finding.line}" for f in report.findings]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (_HOST, ["SMT511 error 1"]),
        (_LOGIN, ["SMT511 error 1"]),
        (f"{_LOGIN}EMAIL_USE_TLS = False\n", ["SMT511 error 3"]),
        (f"{_LOGIN}EMAIL_USE_TLS: bool = False\nEMAIL_USE_SSL = 0\n", ["SMT511 error 3"]),
        (f"TLS = False\n{_LOGIN}EMAIL_USE_TLS = TLS\n", ["SMT511 error 4"]),
        (f'EMAIL_BACKEND = "{_BACKEND}"\n{_LOGIN}', ["SMT511 error 2"]),
        (f'EMAIL_BACKEND = env("BACKEND")\n{_LOGIN}', ["SMT511 error 2"]),
        ('EMAIL_HOST = env("EMAIL_HOST", default="localhost")\n', ["SMT511 error 1"]),
        (f"if DEBUG:\n    pass\nelse:\n    {_HOST}", ["SMT511 error 4"]),
        (f"class Production(Base):\n    {_HOST}    EMAIL_USE_TLS = False\n", ["SMT511 error 3"]),
        (f"from base import *\n{_HOST}", ["SMT511 warning 2"]),
        (f'{_LOGIN}EMAIL_USE_TLS = os.environ.get("TLS", "False") == "True"\n', ["SMT511 warning 3"]),
        (f'{_LOGIN}EMAIL_USE_TLS = env.bool("TLS", default=False)\n', ["SMT511 warning 3"]),
        (f'{_LOGIN}EMAIL_USE_TLS = bool(os.getenv("TLS") or False)\n', ["SMT511 warning 3"]),
        (f'{_LOGIN}EMAIL_USE_TLS = config("TLS", default=True, cast=bool)\n', ["SMT511 note 3"]),
        (f'{_LOGIN}EMAIL_USE_TLS = os.getenv("TLS", "true").lower() == "true"\n', ["SMT511 note 3"]),
        (f'{_LOGIN}EMAIL_USE_TLS = env("TLS")\n', ["SMT511 note 3"]),
        (f'{_LOGIN}EMAIL_USE_TLS = bool(os.getenv("TLS", "1"))\n', ["SMT511 note 3"]),
        (f"{_LOGIN}EMAIL_USE_TLS = secrets.tls\n", ["SMT511 note 3"]),
        (
            f'MAILERS = {{"default": {{"BACKEND": "{_BACKEND}", "OPTIONS": {{"host": "smtp.example.org"}}}}}}',
            ["SMT511 error 1"],
        ),
        (
            (
                'MAILERS = {\n"default": {"OPTIONS": {"host": HOST,\n"use_tls": False, "password": "x"}},\n'
                '"other": {"OPTIONS": dict(host=HOST,\nuse_ssl=env.bool("SSL", True))}}'
            ),
            ["SMT511 error 3", "SMT511 note 5"],
        ),
        (f"{_LOGIN}if X:\n    EMAIL_USE_TLS = True\nelse:\n    EMAIL_USE_TLS = False\n", ["SMT511 note 6"]),
        (f"try:\n    {_HOST}except E:\n    {_HOST}    EMAIL_USE_TLS = False\n", ["SMT511 error 5"]),
        (f'{_LOGIN}EMAIL_USE_TLS = env("TLS", True) is True\n', ["SMT511 note 3"]),
        (f'{_LOGIN}EMAIL_USE_TLS = env("TLS", True) == False\n', ["SMT511 note 3"]),
        ('app.config.update({**base, "MAIL_SERVER": host})', ["SMT512 warning 1"]),
        (f"class Config:\n    {_SERVER}", ["SMT512 error 2"]),
        (f"class Config:\n    {_SERVER}    MAIL_USE_TLS = os.environ.get('TLS')\n", ["SMT512 note 3"]),
        ('app.config["MAIL_SERVER"] = host\napp.config["MAIL_USE_TLS"] = False\n', ["SMT512 error 2"]),
        ('app.config.update(MAIL_SERVER="smtp.example.org", MAIL_USERNAME=user)', ["SMT512 error 1"]),
        ('app.config.update({"MAIL_SERVER": "smtp.example.org"})', ["SMT512 error 1"]),
        ('app.config.from_mapping(**{"MAIL_SERVER": "smtp.example.org"})', ["SMT512 error 1"]),
        ("ConnectionConfig(MAIL_SERVER=host, MAIL_STARTTLS=False, MAIL_SSL_TLS=False)", ["SMT601 error 1"]),
        ("ConnectionConfig(MAIL_SERVER=host, MAIL_TLS=False, MAIL_SSL=False)", ["SMT601 error 1"]),
        ('ConnectionConfig(MAIL_STARTTLS=env("A", False), MAIL_SSL_TLS=False)', ["SMT601 warning 1"]),
        ("ConnectionConfig(MAIL_STARTTLS=True, MAIL_SSL_TLS=False, VALIDATE_CERTS=False)", ["SMT602 error 1"]),
        ("ConnectionConfig(MAIL_STARTTLS=True, VALIDATE_CERTS=settings.validate)", ["SMT602 note 1"]),
        (
            "class Settings(BaseSettings):\n    MAIL_STARTTLS: bool = False\n    MAIL_SSL_TLS: bool = False\n",
            ["SMT601 error 2"],
        ),
    ],
)
def test_settings_without_tls_are_reported(tmp_path: Path, source: str, expected: list[str]) -> None:
    """The level says whether TLS is off, off by default, or an option."""
    assert _check(tmp_path, source) == expected


@pytest.mark.parametrize(
    "source",
    [
        f"{_LOGIN}EMAIL_USE_TLS = True\n",
        f"{_LOGIN}EMAIL_USE_SSL = True\nEMAIL_USE_TLS = False\n",
        f'{_LOGIN}EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"\n',
        f'{_LOGIN}EMAIL_BACKEND = "securesmtp.integrations.django.EmailBackend"\n',
        'EMAIL_HOST = "localhost"\n',
        'EMAIL_HOST = "127.0.0.1"\nEMAIL_HOST_PASSWORD = "x"\n',
        'EMAIL_HOST = "[::1]"\n',
        'EMAIL_HOST = ""\n',
        "EMAIL_HOST = None\n",
        'EMAIL_HOST_PASSWORD = env("PASSWORD")\n',
        "EMAIL_USE_TLS = False\n",
        f"def f():\n    {_HOST}",
        'send(EMAIL_HOST="smtp.example.org")',
        'MAILERS = {"default": {"OPTIONS": {"timeout": 3}}}',
        '{KEY: 1, "MAIL_SERVER": "localhost"}',
        'make()(MAIL_SERVER="localhost")',
        'MAILERS = {"default": {"OPTIONS": {"host": HOST, "use_tls": True}}}',
        'MAILERS = {"default": {"BACKEND": "anymail.backends.x", "OPTIONS": {"host": HOST}}}',
        'MAILERS = {"default": {"OPTIONS": {"host": "localhost"}}}',
        "MAILERS = load()",
        f"{_SERVER}MAIL_USE_SSL = True\n",
        'app.config["MAIL_SERVER"] = host\napp.config["MAIL_USE_TLS"] = True\n',
        "ConnectionConfig(MAIL_SERVER=host, MAIL_STARTTLS=True, MAIL_SSL_TLS=False)",
        'ConnectionConfig(MAIL_SERVER="localhost", MAIL_STARTTLS=False, MAIL_SSL_TLS=False)',
        "ConnectionConfig(MAIL_STARTTLS=False)",
        "ConnectionConfig(MAIL_STARTTLS=False, MAIL_SSL_TLS=True, VALIDATE_CERTS=True)",
        f"{_LOGIN}EMAIL_USE_TLS = False  # noqa: SMT511\n",
    ],
)
def test_settings_with_tls_are_not_reported(tmp_path: Path, source: str) -> None:
    """TLS that is on, this machine, another backend, names that are not settings."""
    assert _check(tmp_path, source) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('{"class": "logging.handlers.SMTPHandler", "mailhost": HOST}', ["SMT501 error 1"]),
        ('{"class": "logging.handlers.SMTPHandler", "mailhost": (HOST, 587), "credentials": C}', ["SMT501 error 1"]),
        ('{"()": "logging.handlers.SMTPHandler", "mailhost": H, "credentials": C, "secure": None}', ["SMT501 error 1"]),
        ('{"class": "logging.handlers.SMTPHandler", "mailhost": HOST, "secure": ()}', ["SMT501 error 1"]),
        (
            '{"class": "logging.handlers.SMTPHandler", "mailhost": [HOST, 587],\n"credentials": C, "secure": ()}',
            ["SMT502 error 2"],
        ),
        ('dict(**{"class": "logging.handlers.SMTPHandler"}, mailhost=HOST)', ["SMT501 error 1"]),
        ('{"class": "logging.handlers.SMTPHandler", "mailhost": ("localhost", 25)}', []),
        ('{"class": "logging.handlers.SMTPHandler", "mailhost": "127.0.0.1", "credentials": C}', []),
        ('{"class": "logging.handlers.SysLogHandler", "mailhost": HOST}', []),
        ('{"mailhost": HOST}', []),
        ('{"class": "logging.StreamHandler"}  # not an SMTPHandler', []),
    ],
)
def test_handlers_of_dict_config(tmp_path: Path, source: str, expected: list[str]) -> None:
    """TLS needs credentials and `secure`, and even then verifies nothing."""
    assert _check(tmp_path, source) == expected


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (
            "class=handlers.SMTPHandler\nargs=(('smtp.example.org', 587), 'a', ['b'], 'x', ('u', 'p'))",
            ["SMT501 error 4"],
        ),
        ("class=handlers.SMTPHandler\nargs=('smtp.example.org', 'a', ['b'], 'x', ('u', 'p'), ())", ["SMT502 error 4"]),
        ("class=logging.handlers.SMTPHandler\nkwargs={'mailhost': 'smtp.example.org'}", ["SMT501 error 4"]),
        ("class=handlers.SMTPHandler\nargs=('localhost', 'a', ['b'], 'x')", []),
        ("class=handlers.SMTPHandler\nargs=(", ["SMT501 error 4"]),
        ("class=handlers.SMTPHandler\nargs=configured", ["SMT501 error 4"]),
        ("class=StreamHandler\n# not an SMTPHandler", []),
        ("class=StreamHandler", []),
    ],
)
def test_handlers_of_file_config(tmp_path: Path, section: str, expected: list[str]) -> None:
    """The section of the handler is reported; percent signs and interpolation do not matter."""
    text = f"[loggers]\nkeys=root%s\n\n[handler_mail]\n{section}\n"
    assert _check(tmp_path, text, "logging.ini") == expected


def test_an_ini_file_of_another_kind_is_not_read(tmp_path: Path) -> None:
    """Many files of that name have no sections."""
    assert _check(tmp_path, "server { SMTPHandler }\n", "nginx.conf") == []
