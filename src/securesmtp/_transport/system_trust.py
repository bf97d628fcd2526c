"""
The file of root certificates that a Linux distribution keeps.

Only the file itself is read, and by a fixed list of paths: OpenSSL's own default depends on how a Python was built
(portable ones have none) and on SSL_CERT_FILE, and a folder of certificates is loaded on demand, so that nobody can say
whether it has any.
"""

from __future__ import annotations

import sys
from pathlib import Path

from securesmtp.errors import ConfigurationError

# As in Go's crypto/x509 (root_linux.go), with the file of openSUSE.
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch, Gentoo
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL: for servers only
    "/etc/pki/tls/certs/ca-bundle.crt",  # older ones of these
    "/var/lib/ca-certificates/ca-bundle.pem",  # openSUSE
    "/etc/ssl/ca-bundle.pem",  # older ones of it
    "/etc/ssl/certs/ca-bundle.crt",  # NixOS
)


def system_bundle() -> str:
    """
    Return the path of the system's root certificates.

    Raises:
        ConfigurationError: There is no such file, or the system keeps them in another way.
    """
    if sys.platform != "linux":
        message = f'trust="system" is for Linux, and this system is {sys.platform}'
        raise ConfigurationError(message, hint="leave it out, or export the roots to trust and pass ca_file")
    found = next((path for path in BUNDLES if Path(path).is_file()), None)
    if found is None:
        message = 'trust="system" finds no file of root certificates on this system'
        raise ConfigurationError(message, hint="install the package ca-certificates, or pass ca_file")
    return found
