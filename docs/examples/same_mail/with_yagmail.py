import os
import ssl

import yagmail

with yagmail.SMTP(
    user={"ada@example.com": "Ada"},
    password=os.environ["SMTP_PASSWORD"],
    host=os.environ["SMTP_HOST"],
    port=int(os.environ["SMTP_PORT"]),
    context=ssl.create_default_context(),
) as smtp:
    smtp.send(
        to=["bob@example.net", "eve@example.net"],
        subject="Your invoice",
        contents=["<p>Your invoice is attached.</p>", yagmail.inline("logo.png")],
        attachments="report.pdf",
    )
