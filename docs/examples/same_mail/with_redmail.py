import os
import smtplib
import ssl
from pathlib import Path

from redmail import EmailSender

sender = EmailSender(
    host=os.environ["SMTP_HOST"],
    port=int(os.environ["SMTP_PORT"]),
    username=os.environ["SMTP_USERNAME"],
    password=os.environ["SMTP_PASSWORD"],
    cls_smtp=smtplib.SMTP_SSL,
    use_starttls=False,
    context=ssl.create_default_context(),
)
sender.send(
    sender="Ada <ada@example.com>",
    receivers=["bob@example.net", "eve@example.net"],
    subject="Your invoice",
    text="Your invoice is attached.",
    html="<p>Your invoice is attached.</p>{{ logo }}",
    body_images={"logo": "logo.png"},
    attachments={"report.pdf": Path("report.pdf")},
)
