// Hands a message to the sink of the tests, in one SMTP transaction.
"use strict"

const net = require("node:net")

// `content` is a Buffer that ends in CRLF; `done` gets an error, or null once the sink has the message.
exports.relay = (port, from, to, content, done) => {
    const socket = net.connect({ port, host: "127.0.0.1", noDelay: true })
    let replies = ""
    socket.setEncoding("latin1")
    socket.on("data", (text) => (replies += text))
    socket.on("error", () => {})
    socket.on("close", () => {
        // 354, and 221 for QUIT: the sink has replied to everything.
        const failed = /^[45]/m.test(replies) || !/^354/m.test(replies) || !/^221/m.test(replies)
        done(failed ? new Error(`the sink replied ${replies}`) : null)
    })
    const recipients = to.map((address) => `RCPT TO:<${address}>\r\n`).join("")
    socket.write(`EHLO localhost\r\nMAIL FROM:<${from}>\r\n${recipients}DATA\r\n`)
    // Latin-1 leaves each byte as it is. Not /^\./m, whose lines may also end in a bare CR.
    socket.write(content.toString("latin1").replace(/(^|\n)\./g, "$1.."), "latin1")
    socket.write(".\r\nQUIT\r\n")
}
