// nodemailer's smtp-server on two ports, as its documentation sets it up; `smtp_server.py` writes the settings.
"use strict"

const crypto = require("node:crypto")
const fs = require("node:fs")
const { domainToASCII } = require("node:url")
const { SMTPServer } = require("smtp-server")
const { relay } = require("./relay")

const settings = JSON.parse(fs.readFileSync(process.argv[2], "utf8"))
const pem = fs.readFileSync(settings.certificate)

function reply(responseCode, text) {
    return Object.assign(new Error(text), { responseCode })
}

// The user of a JSON Web Token, if the signature and the time are right.
function userOf(token) {
    const [head, claims, signature] = token.split(".")
    const right = crypto.createHmac("sha256", settings.token_key).update(`${head}.${claims}`).digest("base64url")
    if (signature !== right) return undefined
    const { email, exp } = JSON.parse(Buffer.from(claims, "base64url").toString())
    return exp > Date.now() / 1000 ? email : undefined
}

// smtp-server itself refuses who speaks before its greeting.
function onConnect(session, callback) {
    setTimeout(callback, settings.greeting_delay * 1000)
}

function onAuth(auth, session, callback) {
    if (auth.method === "XOAUTH2") {
        if (userOf(auth.accessToken) === auth.username) return callback(null, { user: auth.username })
        return callback(null, { data: { status: "401", schemes: "bearer", scope: "mail" } })
    }
    const password = settings.accounts[auth.username]
    const isRight = auth.method === "CRAM-MD5" ? auth.validatePassword(password ?? "") : auth.password === password
    if (password === undefined || !isRight) return callback(reply(535, "Invalid username or password"))
    callback(null, { user: auth.username })
}

function onRcptTo(address, session, callback) {
    const refusal = settings.refusals[address.address]
    callback(refusal && reply(parseInt(refusal), refusal.slice(4)))
}

// smtp-server decodes the labels of a domain.
function toWire(address) {
    const at = address.lastIndexOf("@") + 1
    return address.slice(0, at) + (domainToASCII(address.slice(at)) || address.slice(at))
}

function onData(stream, session, callback) {
    const chunks = []
    stream.on("data", (chunk) => chunks.push(chunk))
    stream.on("end", () => {
        if (stream.sizeExceeded) return callback(reply(552, "5.3.4 message too big"))
        const { mailFrom, rcptTo } = session.envelope
        const to = rcptTo.map((recipient) => toWire(recipient.address))
        relay(settings.sink, mailFrom.address, to, Buffer.concat(chunks), (error) =>
            callback(error && reply(451, error.message)),
        )
    })
}

for (const [port, secure] of [
    [settings.implicit, true],
    [settings.starttls, false],
]) {
    const server = new SMTPServer({
        secure,
        key: pem,
        cert: pem,
        name: "localhost",
        size: settings.size,
        authMethods: ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"],
        hideENHANCEDSTATUSCODES: false,
        hideREQUIRETLS: false,
        disableReverseLookup: true,
        socketTimeout: settings.patience * 1000,
        logger: true,
        onConnect,
        onAuth,
        onRcptTo,
        onData,
    })
    // Without a listener, a client that closes the connection would end this program.
    server.on("error", (error) => console.log(error.message))
    server.listen(port, "127.0.0.1")
}
