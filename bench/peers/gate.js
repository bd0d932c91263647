'use strict'
// Haraka's part of the comparison: refuse whoever has not opted in, and stamp the two unsubscribe headers.

const { createHmac } = require('node:crypto')
const { Socket } = require('node:net')
const Database = require('better-sqlite3')

exports.register = function () {
    const settings = this.config.get('gate.ini').main
    this.optin = new Database(settings.database, { readonly: true }).prepare('SELECT 1 FROM optin WHERE addr = ?')
    this.secret = settings.secret
    if (settings.nodelay === 'True') disable_nagle()
    this.register_hook('data_post', 'stamp')
}

exports.hook_rcpt = function (next, connection, [recipient]) {
    if (!this.optin.get(recipient.address.toLowerCase())) return next(DENY, 'no opt-in')
    connection.transaction.notes.reader = recipient.address
    connection.relaying = true // else the dkim plugin does not sign; smtp_forward has enable_outbound for it
    next(OK)
}

exports.stamp = function (next, { transaction }) {
    const token = createHmac('sha256', this.secret).update(transaction.notes.reader).digest('base64url')
    transaction.add_header('List-Unsubscribe', `<https://mail.example.com/u/${token}>`)
    transaction.add_header('List-Unsubscribe-Post', 'List-Unsubscribe=One-Click')
    next()
}

// smtp_forward writes a message in several pieces and, without this, waits for a delayed ACK in between.
function disable_nagle() {
    const connect = Socket.prototype.connect
    Socket.prototype.connect = function (...where) {
        this.setNoDelay(true)
        return connect.apply(this, where)
    }
}
