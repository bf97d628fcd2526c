// nodemailer's part of `failover.py`: `node failover.cjs TASK` sends one message, by the loop that its users write.
"use strict";
const fs = require("node:fs");
const nodemailer = require("nodemailer");

const task = JSON.parse(process.argv[2]);
const transports = task.ports.map((port) =>
  nodemailer.createTransport({
    host: "localhost", port, secure: true, auth: { user: task.login[0], pass: task.login[1] },
    tls: { ca: fs.readFileSync(task.ca) },
  }));

async function send(mail) {
  let last;
  for (const transport of transports) {
    try {
      return await transport.sendMail(mail);
    } catch (error) {
      last = error;
    }
  }
  throw last;
}

send({ envelope: { from: "a@example.test", to: ["b@example.test"] }, raw: fs.readFileSync(task.message) })
  .then(() => console.log("accepted"), (error) => console.log(`error: ${error.code}`));
