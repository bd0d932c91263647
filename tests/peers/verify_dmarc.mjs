// A receiver's whole look at a message: npm mailauth, with DNS answered from a file.
//
//   node verify_dmarc.mjs RECORDS.json MESSAGE-FILE …   → a list of results, in the order of the files
//
// RECORDS.json maps a name to its TXT record. The message comes from an address that no SPF record allows, so that a result
// {"dmarc": "pass", "aligned": "news.example.com", "policy": "reject"} is owed to DKIM alone.

import { readFileSync } from 'node:fs';
import { authenticate } from 'mailauth';

const [recordFile, ...messageFiles] = process.argv.slice(2);
const records = JSON.parse(readFileSync(recordFile, 'utf8'));

async function resolver(name, type) {
    const record = type === 'TXT' ? records[name] : undefined;
    if (record === undefined) {
        throw Object.assign(new Error(`query${type} ENOTFOUND ${name}`), { code: 'ENOTFOUND' });
    }
    return [[record]];
}

async function judge(file) {
    const sender = { ip: '203.0.113.9', helo: 'elsewhere.example.net', sender: 'bounce@elsewhere.example.net' };
    const { dmarc } = await authenticate(readFileSync(file), { ...sender, mta: 'mx.example.org', resolver });
    return { dmarc: dmarc.status.result, aligned: dmarc.alignment?.dkim?.result, policy: dmarc.policy };
}

console.log(JSON.stringify(await Promise.all(messageFiles.map(judge))));
