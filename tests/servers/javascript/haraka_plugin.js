// The one plugin of our own of Haraka: its accounts, the recipients that it refuses, and the sink.
"use strict"

const path = require("node:path")
const { relay } = require(path.join(process.env.SECURESMTP_NODE, "relay"))

exports.register = function () {
    this.inherits("auth/auth_base")
    this.settings = this.config.get("securesmtp.json")
}

exports.get_plain_passwd = function (user, connection, callback) {
    callback(this.settings.accounts[user] ?? null)
}

// As haraka-plugin-early_talker, which leaves out clients of this machine.
exports.hook_connect_init = function (next, connection) {
    if (!this.settings.greeting_delay) return next()
    setTimeout(
        () => (connection.early_talker ? next(DENYDISCONNECT, "You talk too soon") : next()),
        this.settings.greeting_delay * 1000,
    )
}

// Otherwise, it asks the resolver for the client's name.
exports.hook_lookup_rdns = (next) => next(OK, "localhost")

// A login sets `relaying`.
exports.hook_mail = (next, connection) => (connection.relaying ? next() : next(DENY, "5.7.0 authentication required"))

exports.hook_rcpt = function (next, connection, [recipient]) {
    const refusal = this.settings.refusals[recipient.address]
    if (!refusal) return next(OK)
    next(refusal.startsWith("5") ? DENY : DENYSOFT, refusal.slice(4))
}

// In place of Haraka's own queue, which splits a message by domain and adds Date and Message-ID.
exports.hook_queue_outbound = function (next, connection) {
    const { mail_from, rcpt_to, message_stream } = connection.transaction
    message_stream.get_data((data) => {
        // What Haraka makes of each login stands above its Received field.
        const start = data.indexOf("Received: ")
        const to = rcpt_to.map((recipient) => recipient.address)
        relay(this.settings.sink, mail_from.address ?? "", to, data.subarray(start), (error) =>
            error ? next(DENYSOFT, error.message) : next(OK),
        )
    })
}
