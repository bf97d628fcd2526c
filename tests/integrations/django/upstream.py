"""
Run Django's own tests of its SMTP backend against ours: `python upstream.py FOLDER`, where FOLDER has Django's tests.

They are in the sdist of the installed version; `nox -s django` downloads it. Changed for them:

- Their server speaks implicit TLS, with the certificate of a CA that the backend trusts.
- Where a test configures no TLS, which ours refuses to use, the backend uses implicit TLS when it connects.
- The backend has one connection, because some tests expect messages in their order.

What does not apply is listed with the reason, and is run all the same: such a test must fail.
"""

from __future__ import annotations

import ssl
import sys
import unittest
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import django
import trustme
from aiosmtpd.controller import Controller
from django.conf import settings
from django.test.runner import DiscoverRunner

from securesmtp.integrations.django import EmailBackend as Ours
from securesmtp.integrations.django import close_mailers

_MOCKS = "It replaces smtplib, or looks at what only its connection has."
_TEXT = "It compares the text of smtplib's or Django's error."
_MODE = "It uses another mode than its server, and expects smtplib's error."
_DOMAIN = "An address without a domain is refused."
_CLASS = "With EMAIL_*, ours is ImproperlyConfigured, as for every other setting."
NOT_APPLICABLE = {
    "test_auth_attempted": _MOCKS,
    "test_reopen_replaces_partial_connection": _MOCKS,
    "test_ssl_context_uses_ssl_certfile_and_keyfile": _MOCKS,
    "test_connection_timeout_custom": _MOCKS,
    "test_smtp_connection_uses_timeout": _MOCKS,
    "test_smtp_connection_uses_host_and_port": _MOCKS,
    "test_serialized_message_uses_crlf_line_ending": _MOCKS,
    "test_email_msg_uses_crlf": _MOCKS,
    "test_send_messages_after_open_failed": "A send does not need open(), so a failed one does not prevent it.",
    "test_server_open": "There is no half-open connection to look at.",
    "test_avoids_sending_to_invalid_addresses": _TEXT,
    "test_rejects_non_ascii_local_part": "Such an address can be sent, to a server that offers SMTPUTF8.",
    "test_prep_address_without_force_ascii": "It is a method for subclasses of Django's backend.",
    "test_recipient_without_domain": _DOMAIN,
    "test_lazy_addresses": _DOMAIN,
    "test_email_tls_attempts_starttls": _MODE,
    "test_email_ssl_attempts_ssl_connection": _MODE,
    "test_ssl_tls_settings_mutually_exclusive": _CLASS,
    "test_ignores_settings_when_initialized_with_alias": "Unless it is set, the port follows the mode.",
    "test_port_default_adapts_to_security": "The same.",
    "test_direct_construction_deprecated": "The same; get_connection() warns.",
}
CLASSES = ("SMTPBackendTests", "SMTPBackendStoppedServerTests")


def main(folder: str) -> int:
    """Run the tests that are in *folder*; return how many failed."""
    sys.path[:0] = [folder, str(Path(__file__).parent)]
    if not settings.configured:
        settings.configure(SECRET_KEY="secret", USE_TZ=False, INSTALLED_APPS=[], ADMINS=[], MANAGERS=[])
    django.setup()
    with TemporaryDirectory() as temporary:
        ca, ca_file = trustme.CA(), Path(temporary) / "ca.pem"
        ca.cert_pem.write_to_path(str(ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        module = import_module("mail.test_backends" if django.VERSION >= (6, 1) else "mail.tests")
        kind = backend_class(ca_file)
        vars(module).update(
            Controller=partial(Controller, ssl_context=context), smtp=SimpleNamespace(EmailBackend=kind)
        )
        # Where Django's settings name it, and where Django 6.1 imports it from.
        sys.modules[kind.__module__] = SimpleNamespace(EmailBackend=kind)  # type: ignore[assignment]
        suite = unittest.TestSuite(suite_of(getattr(module, name), kind) for name in CLASSES)
        runner = DiscoverRunner(verbosity=2)
        runner.setup_test_environment()
        result = runner.run_suite(suite)
        runner.teardown_test_environment()
    print(f"{result.testsRun} of Django {django.__version__}; {len(result.expectedFailures)} do not apply:")
    for test, _ in result.expectedFailures:
        name = test.id().rpartition(".")[2]
        print(f"  {name}: {NOT_APPLICABLE.get(name, _CLASS)}")
    for test in result.unexpectedSuccesses:
        print(f"  {test.id()} is listed as not applicable, and passes")
    return int(not result.wasSuccessful())


def backend_class(ca_file: Path) -> Any:
    """Return our backend, which trusts the CA in *ca_file* and never has no TLS."""

    class EmailBackend(Ours):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, ca_file=str(ca_file), max_connections=1, **options)

        def use_mailer(self) -> Any:
            self.use_ssl = not self.use_tls
            # Seconds, where a test uses the wrong mode.
            self.timeout = self.timeout or 3
            return super().use_mailer()

    EmailBackend.__module__, EmailBackend.__qualname__ = "trusting_backend", "EmailBackend"
    return EmailBackend


def suite_of(tests: Any, kind: Any) -> unittest.TestSuite:
    """Return the *tests* of one class, for this backend."""
    tests.backend_class, tests.email_backend = kind, f"{kind.__module__}.EmailBackend"
    not_applicable = dict(NOT_APPLICABLE)
    if django.VERSION < (6, 1):
        not_applicable["test_ssl_tls_mutually_exclusive"] = _CLASS
    for name in not_applicable.keys() & set(dir(tests)):
        setattr(tests, name, unittest.expectedFailure(getattr(tests, name)))
    stop = tests.stop_smtp

    def close_and_stop() -> None:
        # Their server waits for its clients, and ours keep their connections.
        close_mailers()
        stop()

    tests.stop_smtp = staticmethod(close_and_stop)
    return unittest.defaultTestLoader.loadTestsFromTestCase(tests)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
