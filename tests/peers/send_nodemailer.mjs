// A marketing tool on nodemailer: composes a newsletter with inline images and submits it with STARTTLS and AUTH.
//
//   node send_nodemailer.mjs < ORDER.json
//
// The order: {port, ca, user, password, from, to: […], subject, html, text, images: {cid: base64}}. The answer:
// {accepted: […], refused: {address: reply}, reply}; `reply` is the one to the final dot, "" where nobody was accepted.

import { readFileSync } from 'node:fs';
import nodemailer from 'nodemailer';

const order = JSON.parse(readFileSync(0, 'utf8'));

const transport = nodemailer.createTransport({
    host: '127.0.0.1',
    port: order.port,
    requireTLS: true,
    tls: { ca: readFileSync(order.ca), servername: 'relay.example.com' },
    auth: { user: order.user, pass: order.password },
    name: 'tool.example.net',
});

const refusals = (errors) => Object.fromEntries((errors || []).map((error) => [error.recipient, error.response]));

async function send() {
    try {
        const sent = await transport.sendMail({
            from: order.from,
            to: order.to,
            envelope: { from: order.from, to: order.to },
            subject: order.subject,
            html: order.html,
            text: order.text,
            attachments: Object.entries(order.images).map(([cid, content]) => ({
                cid,
                filename: `${cid.split('@')[0]}.png`,
                content: Buffer.from(content, 'base64'),
                contentDisposition: 'inline',
            })),
        });
        return { accepted: sent.accepted, refused: refusals(sent.rejectedErrors), reply: sent.response };
    } catch (error) {
        if (!error.rejectedErrors) {
            throw error;
        }
        return { accepted: [], refused: refusals(error.rejectedErrors), reply: '' };
    }
}

console.log(JSON.stringify(await send()));
