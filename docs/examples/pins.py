"""
Pin the server's key, in addition to all other checks.

`python pins.py smtps://smtp.example.com` shows the pin of the server's key.
`python pins.py 'smtps://smtp.example.com?pin=sha256/…&pin=sha256/…'` checks that the
server has one of these keys: the key in use, or the backup that you keep in a safe.
"""

import sys

from securesmtp import SecureMailer
from securesmtp.errors import CertificateError

with SecureMailer.from_url(sys.argv[1]) as mailer:
    try:
        report = mailer.check()  # connects as a send would, and sends no message
    except CertificateError as error:
        sys.exit(f"refused, {error.reason}: {error}")

print(report.tls.peer_spki_sha256)
