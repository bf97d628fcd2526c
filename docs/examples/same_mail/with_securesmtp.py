from securesmtp import SecureMailer, compose

message = compose(
    sender=("Ada", "ada@example.com"),
    to=["bob@example.net", "eve@example.net"],
    subject="Your invoice",
    text="Your invoice is attached.",
    html='<p>Your invoice is attached.</p><img src="cid:logo">',
    inline={"logo": "logo.png"},
    attachments="report.pdf",
)
with SecureMailer.from_env() as mailer:
    mailer.send(message)
