"""
Dovecot's submission service: its own SASL server, in front of the sink.

Version 2.4 has the -PLUS mechanisms, and other settings. Where the system's is 2.3, as on Debian 12, a 2.4 of Debian 13
runs in a root of its own, which tests/servers/install unpacks.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import shutil
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, ClassVar

from servers.real import ACCOUNTS, CAROL, INSTALL, SEARCH_PATH, SIZE_LIMIT, Ability, RealServer, in_root

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM = "/usr/sbin/dovecot"
SERVICE = "/usr/lib/dovecot/submission-login"

CONFIGURATION = """\
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/dovecot.log
auth_verbose = yes
# By default, the eleventh connection of a user is refused.
mail_max_userip_connections = 0
protocols = submission
listen = 127.0.0.1
hostname = localhost

ssl = required
ssl_min_protocol = TLSv1.2
ssl_cert = <{certificate}
ssl_key = <{certificate}
# EXTERNAL: a certificate of this CA, whose common name is the user's.
ssl_ca = <{ca}
ssl_verify_client_cert = yes
ssl_require_crl = no
auth_ssl_username_from_cert = yes

auth_mechanisms = plain login scram-sha-1 scram-sha-256 external oauthbearer xoauth2
auth_failure_delay = 0
# Any name, as it is.
auth_username_chars =
auth_username_format = %u
passdb {{
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = {directory}/oauth2.conf
}}
passdb {{
  driver = passwd-file
  mechanisms = plain login scram-sha-1 scram-sha-256
  args = scheme=PLAIN username_format=%u {directory}/users
}}
passdb {{
  driver = passwd-file
  mechanisms = external
  args = username_format=%u {directory}/certified
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={directory}/home
}}
mail_location = maildir:{directory}/home/mail

submission_relay_host = 127.0.0.1
submission_relay_port = {sink}
submission_relay_trusted = no
submission_max_mail_size = {size}

service anvil {{
  chroot =
  # No penalty for wrong passwords: each would delay the next login.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service submission-login {{
  chroot =
  inet_listener submission {{
    port = {starttls}
  }}
  inet_listener submissions {{
    port = {implicit}
    ssl = yes
  }}
}}
"""

CONFIGURATION_24 = """\
dovecot_config_version = {version}
dovecot_storage_version = {version}
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/dovecot.log
auth_verbose = yes
# By default, the eleventh connection of a user is refused.
mail_max_userip_connections = 0
protocols = submission
listen = 127.0.0.1
hostname = localhost

ssl = required
ssl_min_protocol = TLSv1.2
ssl_server_cert_file = {certificate}
ssl_server_key_file = {certificate}
ssl_server_ca_file = {ca}
ssl_server_request_client_cert = yes
ssl_server_require_crl = no
auth_ssl_username_from_cert = yes

auth_mechanisms = plain login scram-sha-1 scram-sha-256 scram-sha-1-plus scram-sha-256-plus external oauthbearer xoauth2
auth_failure_delay = 0
auth_username_chars =
auth_username_format = %{{user}}
oauth2 {{
  introspection_mode = local
  username_attribute = email
  oauth2_local_validation {{
    dict fs {{
      fs posix {{
        prefix = {directory}/keys/
      }}
    }}
  }}
}}
passdb oauth2 {{
  mechanisms_filter = oauthbearer xoauth2
}}
passdb passwords {{
  driver = passwd-file
  mechanisms_filter = plain login scram-sha-1 scram-sha-256 scram-sha-1-plus scram-sha-256-plus
  default_password_scheme = PLAIN
  passwd_file_path = {directory}/users
}}
passdb certified {{
  driver = passwd-file
  mechanisms_filter = external
  passwd_file_path = {directory}/certified
}}
userdb static {{
  fields {{
    uid = nobody
    gid = nogroup
    home = {directory}/home
  }}
}}
mail_driver = maildir
mail_path = {directory}/home/mail

submission_relay_host = 127.0.0.1
submission_relay_port = {sink}
submission_max_mail_size = {size}

service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service submission-login {{
  chroot =
  inet_listener submission {{
    port = {starttls}
  }}
  inet_listener submissions {{
    port = {implicit}
    ssl = yes
  }}
}}
"""

OAUTH2 = """\
introspection_mode = local
local_validation_key_dict = fs:posix:prefix={directory}/keys/
username_attribute = email
"""
# Of the tokens that the server takes.
KEY = b"0123456789abcdef0123456789abcdef"


class Dovecot(RealServer):
    """A private Dovecot, the system's."""

    name: ClassVar[str] = "dovecot"
    cannot: ClassVar[Mapping[Ability, str]] = {
        "patience": "it waits for ten minutes, which cannot be set",
        "greeting": "it greets at once, which cannot be set",
    }
    # What runs a program where Dovecot is.
    _enter: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def missing(cls) -> str | None:
        """Return why Dovecot cannot be started here and what to do about it, or None."""
        if os.geteuid() != 0:
            return "Dovecot starts as root only: run the tests as root"
        for program in (PROGRAM, SERVICE):
            if not os.access(program, os.X_OK):
                return f"{program} is not installed: {INSTALL}"
        return None

    def _prepare(self) -> str:
        for folder in ("run", "state", "home", "keys/default/HS256"):
            (self._directory / folder).mkdir(parents=True)
        shutil.chown(self._directory / "home", "nobody", "nogroup")
        users = "".join(f"{account.username}:{account.password}\n" for account in ACCOUNTS)
        (self._directory / "users").write_text(users, encoding="utf-8")
        (self._directory / "certified").write_text(f"{CAROL}:::::::nopassword\n")
        (self._directory / "keys/default/HS256/default").write_bytes(base64.b64encode(KEY))
        (self._directory / "oauth2.conf").write_text(OAUTH2.format(directory=self._directory))
        return self.installed_version()

    @classmethod
    def installed_version(cls) -> str:
        """Return the version that would be started."""
        command, environment = [*cls._enter, PROGRAM, "--version"], {"PATH": SEARCH_PATH}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.split()[0]

    def _command(self) -> list[str]:
        text = (CONFIGURATION if self.version.startswith("2.3") else CONFIGURATION_24).format(
            version=self.version.partition("-")[0],
            directory=self._directory,
            certificate=self._certificate,
            ca=self._ca_file,
            implicit=self.implicit_port,
            starttls=self.starttls_port,
            sink=self._sink.port,
            size=SIZE_LIMIT,
        )
        path = self._directory / "dovecot.conf"
        path.write_text(text)
        return [*self._enter, PROGRAM, "-F", "-c", str(path)]

    @staticmethod
    def token(email: str, **claims: object) -> str:
        """Return a token with which *email* may log in, for an hour."""
        now = int(time.time())
        body = {"email": email, "sub": email, "iat": now, "nbf": now - 60, "exp": now + 3600, **claims}
        signed = f"{_segment({'alg': 'HS256', 'typ': 'JWT'})}.{_segment(body)}"
        return f"{signed}.{_base64url(hmac.digest(KEY, signed.encode(), 'sha256'))}"


class NewDovecot(Dovecot):
    """A private Dovecot 2.4, in its own root, which sees the folder of temporary files."""

    _enter: ClassVar[tuple[str, ...]] = in_root("dovecot-2.4", {tempfile.gettempdir(): tempfile.gettempdir()})

    @classmethod
    def missing(cls) -> str | None:
        """Return why Dovecot cannot be started here and what to do about it, or None."""
        if os.geteuid() != 0:
            return "Dovecot starts as root only: run the tests as root"
        try:
            cls.installed_version()
        except (OSError, subprocess.CalledProcessError) as error:
            return f"Dovecot 2.4 does not run here ({error}): {INSTALL}"
        return None


def _segment(value: Mapping[str, object]) -> str:
    return _base64url(json.dumps(value).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
