// nodemailer's part of the benchmark: `node nodemailer.cjs TASK` prints what one message took (see clients.py).
"use strict";
const fs = require("node:fs");
const nodemailer = require("nodemailer");

const task = JSON.parse(process.argv[2]);
const people = Array.from({ length: task.recipients }, (_, number) => `b${number}@example.test`);
const mail = {
  from: "a@example.test", to: people, subject: "A benchmark", messageId: "<1@example.test>",
  text: "x".repeat(70) + "\n" + ("y".repeat(70) + "\n").repeat(25),
};
if (task.message === "large") {
  const content = Buffer.from(Array.from({ length: 256 }, (_, number) => number));
  mail.attachments = [{ filename: "a", content: Buffer.concat(Array(Math.floor(25_000_000 / 256)).fill(content)) }];
}

function open() {
  return nodemailer.createTransport({
    host: "localhost", port: task.port, secure: true, auth: { user: task.login[0], pass: task.login[1] },
    tls: { ca: fs.readFileSync(task.ca) }, pool: !task.cold, maxConnections: task.connections, maxMessages: Infinity,
  });
}

async function send(transport, count) {
  await Promise.all(Array.from({ length: count }, () => transport.sendMail(mail)));
}

function memory(what) {
  return 1024 * Number(new RegExp(`^${what}:\\s+(\\d+)`, "m").exec(fs.readFileSync("/proc/self/status", "ascii"))[1]);
}

function cpu() {
  const used = process.cpuUsage();
  return (used.user + used.system) / 1e6;
}

(async () => {
  const transport = open();
  if (task.message === "small") await send(transport, 3 * task.connections);
  fs.writeFileSync("/proc/self/clear_refs", "5");
  const [before, began, used] = [memory("VmRSS"), performance.now(), cpu()];
  if (task.cold) for (let each = 0; each < task.count; each++) await send(open(), 1);
  else await send(transport, task.count);
  const seconds = (performance.now() - began) / 1000;
  const found = { seconds: seconds / task.count, cpu: (cpu() - used) / task.count };
  console.log(JSON.stringify({ ...found, memory: memory("VmHWM") - before }));
  process.exit();
})();
