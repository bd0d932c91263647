// The second judge of DKIM signatures: npm mailauth, with DNS answered from a file.
//
//   node verify_dkim.mjs KEYS.json < MESSAGE        → one result
//   node verify_dkim.mjs KEYS.json MESSAGE-FILE …   → a list of results, in the order of the files
//
// KEYS.json maps a name to its TXT record: {"s1._domainkey.example.com": "v=DKIM1; k=rsa; p=…"}. A result is
// {"signatures": [{"result": "pass", "comment": "", "domain", "selector", "algorithm", "headers": […]}]}; the headers are
// those that are signed and there.

import { readFileSync } from 'node:fs';
import { dkimVerify } from 'mailauth/lib/dkim/verify.js';

const [keyFile, ...messageFiles] = process.argv.slice(2);
const records = JSON.parse(readFileSync(keyFile, 'utf8'));

async function resolver(name, type) {
    const record = type === 'TXT' ? records[name] : undefined;
    if (record === undefined) {
        throw Object.assign(new Error(`query${type} ENOTFOUND ${name}`), { code: 'ENOTFOUND' });
    }
    return [[record]];
}

async function judge(message) {
    const { results } = await dkimVerify(message, { resolver });
    return {
        signatures: results.map(({ status, signingDomain, selector, algo, signingHeaders }) => ({
            result: status.result,
            comment: status.comment || '',
            domain: signingDomain,
            selector,
            algorithm: algo,
            headers: (signingHeaders?.keys || '').split(':').map((key) => key.trim().toLowerCase()),
        })),
    };
}

const messages = (messageFiles.length ? messageFiles : [0]).map((file) => readFileSync(file));
const verdicts = await Promise.all(messages.map(judge));
console.log(JSON.stringify(messageFiles.length ? verdicts : verdicts[0]));
