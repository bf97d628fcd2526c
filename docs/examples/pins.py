"""
Pin the server's key, in addition to all other checks.

`python pins.py` shows the key that the server has now, `python pins.py sha256/…`
asks whether it has that one, or one of several.
"""

import os
import sys

from securesmtp import SecureMailer, TLSMode, TLSPolicy
from securesmtp.errors import CertificateError

policy = TLSPolicy(
    ca_file=os.environ.get("SMTP_CA_FILE"),  # None: the public CAs
    # The key in use, and a second one that lies in a safe until the first is changed.
    pins=tuple(sys.argv[1:]) or None,
)
port, mode = os.environ.get("SMTP_PORT"), os.environ.get("SMTP_TLS")

with SecureMailer(
    os.environ["SMTP_HOST"],
    int(port) if port else None,  # None: 465, or 587 for STARTTLS
    tls=TLSMode(mode) if mode else None,  # None: STARTTLS for 587 alone
    policy=policy,
) as mailer:
    try:
        report = mailer.check()  # as a send would, without a mail
    except CertificateError as error:
        sys.exit(f"refused, {error.reason}: {error}")

print(report.tls.peer_spki_sha256)
