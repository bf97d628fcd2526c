import os
from email.mime.image import MIMEImage
from pathlib import Path

from django.conf import settings
from django.core.mail import EmailMultiAlternatives

settings.configure(
    EMAIL_HOST=os.environ["SMTP_HOST"],
    EMAIL_PORT=int(os.environ["SMTP_PORT"]),
    EMAIL_HOST_USER=os.environ["SMTP_USERNAME"],
    EMAIL_HOST_PASSWORD=os.environ["SMTP_PASSWORD"],
    EMAIL_USE_SSL=True,
)
message = EmailMultiAlternatives(
    subject="Your invoice",
    body="Your invoice is attached.",
    from_email="Ada <ada@example.com>",
    to=["bob@example.net", "eve@example.net"],
)
message.attach_alternative(
    '<p>Your invoice is attached.</p><img src="cid:logo">', "text/html"
)
logo = MIMEImage(Path("logo.png").read_bytes())
logo["Content-ID"] = "<logo>"
logo["Content-Disposition"] = 'inline; filename="logo.png"'
message.attach(logo)
message.attach_file("report.pdf")
message.send()
