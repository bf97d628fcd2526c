// nodemailer's part of bench.dkim: `node dkim_nodemailer.cjs TASK` signs a file so often, and prints the CPU of each.
"use strict";
const fs = require("node:fs");
const { PassThrough } = require("node:stream");
const DKIM = require("nodemailer/lib/dkim");

const task = JSON.parse(process.argv[2]);
const message = fs.readFileSync(task.message);
const dkim = new DKIM({ domainName: "example.org", keySelector: "m", privateKey: fs.readFileSync(task.key, "ascii") });

function sign() {
  return new Promise((resolve, reject) => {
    const input = new PassThrough();
    const output = dkim.sign(input);
    output.on("data", () => {});
    output.on("end", resolve);
    output.on("error", reject);
    input.end(message);
  });
}

(async () => {
  for (let number = 0; number < 3; number++) await sign();
  const before = process.cpuUsage();
  for (let number = 0; number < task.count; number++) await sign();
  const used = process.cpuUsage(before);
  process.stdout.write(JSON.stringify((used.user + used.system) / 1e6 / task.count));
})();
