"""Exim from Debian's package, unpacked by tests/servers/install, with its plaintext authenticators."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from servers.real import (
    ACCOUNTS,
    CAROL,
    DOMAIN,
    INSTALL,
    LATER,
    REFUSED,
    SEARCH_PATH,
    SIZE_LIMIT,
    RealServer,
    servers_cache,
)

# Compiled into Debian's Exim, which does not start without this user.
USER = "Debian-exim"

CONFIGURATION = """\
exim_path = {program}
spool_directory = {directory}/spool
log_file_path = {directory}/%s.log
pid_file_path = {directory}/exim.pid
log_selector = +tls_cipher +received_recipients +smtp_protocol_error +smtp_syntax_error
keep_environment =
add_environment = SASL_CONF_PATH={directory}/sasl

# Loopback only, without DNS lookups, not even for DKIM signatures.
local_interfaces = 127.0.0.1
daemon_smtp_ports = {implicit} : {starttls}
tls_on_connect_ports = {implicit}
disable_ipv6 = true
primary_hostname = localhost
qualify_domain = localhost
host_lookup =
rfc1413_hosts =
dkim_verify_signers =

tls_advertise_hosts = *
tls_certificate = {certificate}
# EXTERNAL: a certificate of this CA, whose common name is the user's.
tls_verify_certificates = {ca}
tls_try_verify_hosts = *
auth_advertise_hosts = ${{if def:tls_in_cipher {{*}}}}
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
message_size_limit = {size}
smtp_receive_timeout = {patience}s
# Otherwise no client is too early: all may use the server's PIPECONNECT.
pipelining_connect_advertise_hosts =

allow_domain_literals = true

# The message must not be changed: by default, these fields are removed.
delivery_date_remove = false
envelope_to_remove = false
return_path_remove = false
header_maxsize = {size}
header_line_maxsize = 0

# The limits on fast, frequent and failing clients are raised. Delivery runs in the process that received the message:
# starting Exim again as root would need a configuration file that it was compiled to trust.
deliver_drop_privilege = true
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = 100000
smtp_max_synprot_errors = 10000
smtp_max_unknown_commands = 10000
smtp_accept_max_nonmail = 100000
recipients_max = 0
check_spool_space = 0
check_spool_inodes = 0

acl_smtp_connect = connect
acl_smtp_mail = mail
acl_smtp_rcpt = rcpt
acl_smtp_data = accept

begin acl

connect:
  # In the delay, a client that does not wait for the greeting is found (smtp_enforce_sync, which is the default).
  accept delay = {delay}s

mail:
  deny !authenticated = *
       message = 530 5.7.0 authentication required
  accept

rcpt:
  deny condition = ${{if eqi{{$local_part@$domain}}{{{refused}}}}}
       message = 550 5.1.1 no such user here
  defer condition = ${{if eqi{{$local_part@$domain}}{{{later}}}}}
       message = 450 4.2.1 the mailbox is busy, come again
  accept

begin routers

sink:
  driver = manualroute
  route_list = * 127.0.0.1 byname
  self = send
  transport = sink

begin transports

sink:
  driver = smtp
  protocol = lmtp
  port = {sink}
  allow_localhost
  hosts_try_fastopen =
  # All recipients in one transaction, and lines of any length.
  max_rcpt = 0
  multi_domain
  message_linelength_limit = 100000000
  # For a second message on the same connection, Exim would start itself again; see above.
  connection_max_messages = 1

begin retry

* * F,1h,1s

begin authenticators

plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if eq{{$auth3}}{{${{lookup{{$auth2}}lsearch{{{directory}/passwords}}{{$value}}fail}}}}}}
  server_set_id = $auth2

scram_sha_1:
  driver = cyrus_sasl
  public_name = SCRAM-SHA-1
  server_realm = {domain}
  server_set_id = $auth1

scram_sha_256:
  driver = cyrus_sasl
  public_name = SCRAM-SHA-256
  server_realm = {domain}
  server_set_id = $auth1

scram_sha_512:
  driver = cyrus_sasl
  public_name = SCRAM-SHA-512
  server_realm = {domain}
  server_set_id = $auth1

external:
  driver = external
  public_name = EXTERNAL
  server_param2 = ${{certextract{{subject,CN}}{{$tls_in_peercert}}}}
  server_advertise_condition = $tls_in_certificate_verified
  server_condition = ${{if and{{ {{eq{{$auth2}}{{{carol}}}}} \\
                               {{or{{ {{eq{{$auth1}}{{}}}} {{eq{{$auth1}}{{$auth2}}}} }}}} }}}}
  server_set_id = $auth2

login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if eq{{$auth2}}{{${{lookup{{$auth1}}lsearch{{{directory}/passwords}}{{$value}}fail}}}}}}
  server_set_id = $auth1
"""


SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {directory}/sasldb
"""


class Exim(RealServer):
    """A private Exim."""

    name: ClassVar[str] = "exim"

    @classmethod
    def missing(cls) -> str | None:
        """Return why Exim cannot be started here and what to do about it, or None."""
        if os.geteuid() != 0:
            return "Exim starts as root only: run the tests as root"
        if not _program().exists():
            return f"Exim is not in {servers_cache()}: {INSTALL}"
        done = _version(_program())
        if done.returncode != 0:
            # A library or the user is missing.
            return f"Exim does not run here ({done.stderr.strip()}): {INSTALL}"
        if "cyrus_sasl" not in done.stdout:
            return f"this Exim has no Cyrus SASL: {INSTALL}"
        return None

    def _prepare(self) -> str:
        # Exim's user writes logs and the process number next to the spool, and reads the key.
        (self._directory / "spool").mkdir()
        for path in (self._directory, self._directory / "spool", self._certificate):
            shutil.chown(path, USER, USER)
        passwords = "".join(f'"{account.username}": {account.password}\n' for account in ACCOUNTS)
        (self._directory / "passwords").write_text(passwords, encoding="utf-8")
        (self._directory / "sasl").mkdir()
        (self._directory / "sasl" / "exim.conf").write_text(SASL.format(directory=self._directory))
        self._write_sasldb(USER)
        # The cache may be in a home directory that Exim's user cannot enter, but Exim must be able to restart itself.
        shutil.copy(_program(), self._directory / "exim")
        version = re.search(r"Exim version (\S+)", _version(_program()).stdout)
        assert version is not None
        return version.group(1)

    def _command(self) -> list[str]:
        text = CONFIGURATION.format(
            directory=self._directory,
            program=self._directory / "exim",
            certificate=self._certificate,
            ca=self._ca_file,
            domain=DOMAIN,
            carol=CAROL,
            implicit=self.implicit_port,
            starttls=self.starttls_port,
            sink=self._sink.port,
            refused=REFUSED,
            later=LATER,
            size=SIZE_LIMIT,
            patience=self.patience,
            delay=self.greeting_delay,
        )
        path = self._directory / "exim.conf"
        path.write_text(text)
        # -bdf: a daemon in the foreground.
        return [str(self._directory / "exim"), "-C", str(path), "-bdf"]


def _version(program: Path) -> subprocess.CompletedProcess[str]:
    # An empty configuration, or it would read the machine's.
    command = [str(program), "-C", os.devnull, "-bV"]
    return subprocess.run(command, env={"PATH": SEARCH_PATH}, capture_output=True, text=True, check=False)


def _program() -> Path:
    return servers_cache() / "exim" / "usr" / "sbin" / "exim4"
