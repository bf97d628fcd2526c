"""Debian's Postfix, with Cyrus SASL and its own password database."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from servers.real import INSTALL, LATER, REFUSED, SEARCH_PATH, SIZE_LIMIT, RealServer

PROGRAMS = ("postconf", "saslpasswd2")

# `postfix start` makes these only for instances that the machine's own configuration lists.
QUEUES = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "public", "trace")

MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/mail.log
maillog_file_prefixes = {directory}

# Loopback only, without DNS lookups.
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
myhostname = localhost
mydomain = localdomain
disable_dns_lookups = yes
smtp_host_lookup = native
lmtp_host_lookup = native
smtpd_peername_lookup = no

# Every address of any domain goes to the sink, all recipients of a message in one transaction.
mydestination =
local_recipient_maps =
alias_maps =
default_transport = lmtp:inet:[127.0.0.1]:{sink}
local_transport = $default_transport
lmtp_destination_recipient_limit = 100000
default_destination_recipient_limit = 100000
default_recipient_limit = 100000
smtpd_recipient_limit = 100000
recipient_delimiter =

smtpd_relay_restrictions = permit_sasl_authenticated reject
smtpd_recipient_restrictions = check_recipient_access inline:{{
    {{ {refused} = 550 5.1.1 no such user here }}
    {{ {later} = 450 4.2.1 the mailbox is busy, come again }} }}
smtputf8_enable = yes
message_size_limit = {size}
mailbox_size_limit = 0

smtpd_tls_chain_files = {certificate}
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_tls_loglevel = 1
tls_random_source = dev:/dev/urandom

smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
smtpd_sasl_security_options = noanonymous
cyrus_sasl_config_path = {directory}/sasl

# The message must not be changed: no header added, completed, dropped or cut, no line folded, no conversion, no
# alias. By default, the LMTP client folds lines at 998.
always_add_missing_headers = no
local_header_rewrite_clients =
remote_header_rewrite_domain =
receive_override_options = no_address_mappings
append_at_myorigin = no
append_dot_mydomain = no
swap_bangpath = no
allow_percent_hack = no
resolve_dequoted_address = no
enable_original_recipient = no
message_drop_headers =
header_size_limit = {size}
lmtp_line_length_limit = 0
disable_mime_output_conversion = yes

# The limits on fast, frequent and failing clients are raised.
in_flow_delay = 0
smtpd_error_sleep_time = 0
smtpd_timeout = {patience}s
smtpd_soft_error_limit = 10000
smtpd_hard_error_limit = 10000
smtpd_junk_command_limit = 10000
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
minimal_backoff_time = 1s
queue_run_delay = 1s
"""

MASTER = """\
127.0.0.1:{implicit} inet n - n - - smtpd
    -o smtpd_tls_wrappermode=yes{options}
127.0.0.1:{starttls} inet n - n - - smtpd{options}
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
error     unix  - - n - - error
retry     unix  - - n - - error
lmtp      unix  - - n - - lmtp
scache    unix  - - n - 1 scache
anvil     unix  - - n - 1 anvil
postlog   unix-dgram n - n - 1 postlogd
"""

# Without smtpd_delay_reject, what there is for the client is done before the greeting.
DELAY = """
    -o smtpd_delay_reject=no
    -o {{ smtpd_client_restrictions = sleep {delay} }}
    -o smtpd_forbid_unauth_pipelining=yes"""

SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
mech_list: PLAIN LOGIN SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-512
sasldb_path: {directory}/sasldb
"""


class Postfix(RealServer):
    """A private Postfix."""

    name: ClassVar[str] = "postfix"

    @classmethod
    def missing(cls) -> str | None:
        """Return why Postfix cannot be started here and what to do about it, or None."""
        if os.geteuid() != 0:
            return "Postfix starts as root only: run the tests as root"
        for program in PROGRAMS:
            if shutil.which(program, path=SEARCH_PATH) is None:
                return f"{program} is not installed: {INSTALL}"
        return None

    def _prepare(self) -> str:
        for folder in ("queue", "queue/pid", "data", "sasl"):
            (self._directory / folder).mkdir()
        for folder in QUEUES:
            (self._directory / "queue" / folder).mkdir(mode=0o700)
            shutil.chown(self._directory / "queue" / folder, "postfix")
        shutil.chown(self._directory / "data", "postfix")
        (self._directory / "sasl" / "smtpd.conf").write_text(SASL.format(directory=self._directory))
        self._write_sasldb("postfix")
        main = self._directory / "main.cf"
        main.write_text(
            MAIN.format(
                directory=self._directory,
                certificate=self._certificate,
                sink=self._sink.port,
                refused=REFUSED,
                later=LATER,
                size=SIZE_LIMIT,
                patience=self.patience,
            )
        )
        # Postfix waits before it reads a file that is only a second or two old.
        os.utime(main, (0, 0))
        return _default("mail_version")

    def queued(self) -> int:
        """Return the number of messages that are accepted but not delivered."""
        folders = [self._directory / "queue" / name for name in ("incoming", "active", "deferred")]
        # A file that is not executable was being written when Postfix was stopped, so its message was not accepted.
        return sum(
            path.is_file() and path.stat().st_mode & 0o100 > 0 for folder in folders for path in folder.rglob("*")
        )

    def _command(self) -> list[str]:
        options = DELAY.format(delay=self.greeting_delay) if self.greeting_delay else ""
        master = MASTER.format(implicit=self.implicit_port, starttls=self.starttls_port, options=options)
        (self._directory / "master.cf").write_text(master)
        # -d: do not leave the process group.
        return [str(Path(_default("daemon_directory")) / "master"), "-c", str(self._directory), "-d"]


class SevenBitPostfix(Postfix):
    """A private Postfix whose next hop does not offer 8BITMIME: it encodes what is 8-bit (RFC 6152 §3)."""

    def _prepare(self) -> str:
        self._sink.extensions = ()
        version, main = super()._prepare(), self._directory / "main.cf"
        main.write_text(main.read_text().replace("disable_mime_output_conversion = yes\n", ""))
        os.utime(main, (0, 0))
        return version


def _default(name: str) -> str:
    """Return a setting's compiled-in default."""
    command = ["postconf", "-d", "-h", name]
    environment = {"PATH": SEARCH_PATH}
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
