import os
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import make_msgid
from pathlib import Path

message = EmailMessage()
message["From"] = "Ada <ada@example.com>"
message["To"] = "bob@example.net, eve@example.net"
message["Subject"] = "Your invoice"
message.set_content("Your invoice is attached.")
logo = make_msgid(domain="example.com")
message.add_alternative(
    f'<p>Your invoice is attached.</p><img src="cid:{logo[1:-1]}">',
    subtype="html",
)
message.get_payload()[1].add_related(
    Path("logo.png").read_bytes(),
    maintype="image",
    subtype="png",
    cid=logo,
    disposition="inline",
    filename="logo.png",
)
message.add_attachment(
    Path("report.pdf").read_bytes(),
    maintype="application",
    subtype="pdf",
    filename="report.pdf",
)
with smtplib.SMTP_SSL(
    os.environ["SMTP_HOST"],
    int(os.environ["SMTP_PORT"]),
    context=ssl.create_default_context(),
) as smtp:
    smtp.login(os.environ["SMTP_USERNAME"], os.environ["SMTP_PASSWORD"])
    smtp.send_message(message)
