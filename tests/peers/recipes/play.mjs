// As play.py, for a recipe in JavaScript: node play.mjs < ORDER.json, where mail.mjs lies beside this file.

import { readFileSync } from 'node:fs';
import { sendNewsletter, sendReceipt } from './mail.mjs';

const send = { newsletter: sendNewsletter, receipt: sendReceipt };
const answers = [];
for (const [what, reader] of JSON.parse(readFileSync(0, 'utf8'))) {
    answers.push(await send[what](reader));
}
console.log(JSON.stringify(answers));
process.exit(0);
