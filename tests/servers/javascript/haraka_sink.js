// What may take Haraka longer than the time limit of the other plugin: its greeting, and the way to the sink.
"use strict"

const path = require("node:path")
const { relay } = require(path.join(process.env.SECURESMTP_NODE, "relay"))

exports.register = function () {
    this.settings = this.config.get("securesmtp.json")
}

// As haraka-plugin-early_talker, which leaves out clients of this machine.
exports.hook_connect = function (next, connection) {
    if (!this.settings.greeting_delay) return next()
    setTimeout(
        () => (connection.early_talker ? next(DENYDISCONNECT, "You talk too soon") : next()),
        this.settings.greeting_delay * 1000,
    )
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
