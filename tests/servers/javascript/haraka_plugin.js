// Haraka's accounts, and the recipients that it refuses.
"use strict"

exports.register = function () {
    this.inherits("auth/auth_base")
    this.settings = this.config.get("securesmtp.json")
}

exports.get_plain_passwd = function (user, connection, callback) {
    callback(this.settings.accounts[user] ?? null)
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
