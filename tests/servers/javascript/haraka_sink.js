// Haraka's way to the sink. A plugin of its own, because the other one has a time limit of a second.
"use strict"

const path = require("node:path")
const { relay } = require(path.join(process.env.SECURESMTP_NODE, "relay"))

exports.register = function () {
    this.settings = this.config.get("securesmtp.json")
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
