"""
Sign a text with OpenPGP (RFC 3156), by gpg, and send it: `python openpgp_sign.py TO`.

The text comes from standard input. gpg has the secret key of MAIL_FROM; where the
server is, `SMTP_HOST` and so on say.
"""

import os
import subprocess
import sys
from email.message import EmailMessage
from email.policy import SMTP

from securesmtp import SecureMailer

GPG = ("gpg", "--batch", "--armor", "--detach-sign", "--digest-algo", "SHA256")
SIGNED = """\
--{boundary}
{text}
--{boundary}
Content-Type: application/pgp-signature; name="signature.asc"

{signature}
--{boundary}--
"""


def sign(message: EmailMessage, key: str) -> EmailMessage:
    """Return *message* with its text signed, by gpg, with the secret *key*."""
    part = EmailMessage(policy=SMTP)
    # Encoded, so that no server changes it on the way.
    part.set_content(message.get_content(), cte="base64")
    del part["MIME-Version"]
    text = part.as_bytes()
    command = [*GPG, "--local-user", key]
    done = subprocess.run(command, input=text, capture_output=True, check=True)

    signed = EmailMessage()
    for name in ("From", "To", "Subject"):
        signed[name] = message[name]
    signed["MIME-Version"] = "1.0"
    signed["Content-Type"] = "multipart/signed; micalg=pgp-sha256"
    signed.set_param("protocol", "application/pgp-signature")
    signed.set_boundary(boundary := "=-signed-by-gpg-=")
    # As a text, which nothing serialises again: one more byte would void the signature.
    inside = text.decode("ascii").replace("\r\n", "\n")
    signature = done.stdout.decode("ascii")
    payload = SIGNED.format(boundary=boundary, text=inside, signature=signature)
    signed.set_payload(payload)
    return signed


def main(recipient: str) -> None:
    """Sign what comes on standard input, and send it."""
    message = EmailMessage()
    message["From"] = os.environ["MAIL_FROM"]
    message["To"] = recipient
    message["Subject"] = "Signed with OpenPGP"
    message.set_content(sys.stdin.read())
    with SecureMailer.from_env() as mailer:
        print(mailer.send(sign(message, os.environ["MAIL_FROM"])))


if __name__ == "__main__":
    main(sys.argv[1])
