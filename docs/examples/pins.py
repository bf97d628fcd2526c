"""
Pin the server's key, in addition to all other checks.

`python pins.py` shows the pin of the server's key. `python pins.py sha256/… sha256/…`
checks that the server has one of these keys.
"""

import os
import sys

from securesmtp import SecureMailer, TLSMode, TLSPolicy
from securesmtp.errors import CertificateError

policy = TLSPolicy(
    ca_file=os.environ.get("SMTP_CA_FILE"),  # None: the public CAs
    # The pins of the key in use, and of the backup key that you keep in a safe.
    pins=tuple(sys.argv[1:]) or None,
)
port, mode = os.environ.get("SMTP_PORT"), os.environ.get("SMTP_TLS")

with SecureMailer(
    os.environ["SMTP_HOST"],
    int(port) if port else None,  # None: 465, or 587 for STARTTLS
    tls=TLSMode(mode) if mode else None,  # None: STARTTLS only for port 587
    policy=policy,
) as mailer:
    try:
        report = mailer.check()  # connects as a send would, and sends no message
    except CertificateError as error:
        sys.exit(f"refused, {error.reason}: {error}")

print(report.tls.peer_spki_sha256)
