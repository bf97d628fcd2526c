const nodemailer = require("nodemailer");

const transport = nodemailer.createTransport({
  host: process.env.SMTP_HOST,
  port: Number(process.env.SMTP_PORT),
  secure: true,
  auth: { user: process.env.SMTP_USERNAME, pass: process.env.SMTP_PASSWORD },
});
transport.sendMail({
  from: { name: "Ada", address: "ada@example.com" },
  to: ["bob@example.net", "eve@example.net"],
  subject: "Your invoice",
  text: "Your invoice is attached.",
  html: '<p>Your invoice is attached.</p><img src="cid:logo">',
  attachments: [
    { path: "logo.png", cid: "logo" },
    { path: "report.pdf" },
  ],
}).then(() => transport.close());
