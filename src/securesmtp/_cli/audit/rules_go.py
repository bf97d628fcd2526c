"""
Rules on Go's ``net/smtp``, by tokens rather than by a parser.

What ``net/smtp`` does (Go 1.25): ``SendMail`` uses STARTTLS, verified, only if the server offers it, and an attacker
can remove the offer. ``PlainAuth`` refuses to send a password without TLS, except to localhost. ``Dial`` never begins
TLS itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit.findings import Finding, Level, Rule
from securesmtp._cli.audit.go_values import Address, GoValues

if TYPE_CHECKING:
    from securesmtp._cli.audit.go_tokens import GoSource

_FIX: Final = """\
// Port 465: TLS from the first byte. tls.Dial verifies the certificate.
config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
conn, err := tls.Dial("tcp", net.JoinHostPort(host, "465"), config)
if err != nil {
    return err
}
client, err := smtp.NewClient(conn, host)
if err != nil {
    return err
}
// Or, in place of the lines above, port 587: STARTTLS, or nothing.
config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
client, err := smtp.Dial(net.JoinHostPort(host, "587"))
if err != nil {
    return err
}
if ok, _ := client.Extension("STARTTLS"); !ok {
    return errors.New("the server does not offer STARTTLS")
}
if err := client.StartTLS(config); err != nil {
    return err
}
// After either: log in, and send with client.Mail, client.Rcpt and client.Data.
if ok, _ := client.Extension("AUTH"); !ok {
    return errors.New("the server does not offer AUTH")
}
if err := client.Auth(smtp.PlainAuth("", username, password, host)); err != nil {
    return err
}"""

SENDMAIL: Final = Rule(
    "SMT901",
    "go-sendmail-without-required-tls",
    319,
    Level.ERROR,
    "Go: smtp.SendMail to port 25, or without a login",
    "SendMail uses STARTTLS only if the server offers it. An attacker in between removes the offer, and the message"
    " goes in plaintext: nothing in SendMail can require TLS. Port 25 is for servers among themselves.",
    _FIX,
)
DIAL: Final = Rule(
    "SMT902",
    "go-dial-without-tls",
    319,
    Level.ERROR,
    "Go: smtp.Dial without a StartTLS that must succeed",
    "Dial connects in plaintext and never begins TLS. Without StartTLS the message goes in plaintext; with a StartTLS"
    " that is left out if the server does not offer it, an attacker in between decides.",
    _FIX,
)
PLAIN_AUTH: Final = Rule(
    "SMT903",
    "go-plain-auth-on-port-25",
    319,
    Level.WARNING,
    "Go: smtp.PlainAuth on port 25",
    "PlainAuth refuses to send the password without TLS (except to localhost). On port 25, whether there is TLS is up"
    " to the server's offer, which an attacker in between removes. Submit on 465 or 587, with TLS that must succeed.",
    _FIX,
)
UNVERIFIED: Final = Rule(
    "SMT904",
    "go-tls-not-verified",
    295,
    Level.ERROR,
    "Go: InsecureSkipVerify in a file that sends mail",
    "With InsecureSkipVerify, TLS accepts any certificate for any name: an attacker in between reads the password and"
    " the message.",
    """\
config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
// For a CA of your own:
roots := x509.NewCertPool()
roots.AppendCertsFromPEM(pem)
config.RootCAs = roots""",
)
RULES: Final = (SENDMAIL, DIAL, PLAIN_AUTH, UNVERIFIED)
# gosec's rule for InsecureSkipVerify.
GOSEC: Final = {UNVERIFIED.id: "G402"}

_SMTP: Final = "net/smtp"
# Libraries over net/smtp, or in its place, that take a *tls.Config.
_MAIL_PACKAGES: Final = (
    _SMTP,
    "github.com/emersion/go-smtp",
    "github.com/go-gomail/gomail",
    "github.com/go-mail/mail",
    "github.com/jordan-wright/email",
    "github.com/wneessen/go-mail",
    "github.com/xhit/go-simple-mail",
    "gopkg.in/gomail.v2",
    "gopkg.in/mail.v2",
)
_RELAY_PORT: Final = "25"


def check_go(path: str, go: GoSource) -> list[Finding]:
    """Return the findings in a Go file, sorted."""
    paths = go.packages.values()
    checker = _Checker(path, go)
    if _SMTP in paths:
        checker.check_sends()
    if any(
        imported == package or imported.startswith(f"{package}/") for imported in paths for package in _MAIL_PACKAGES
    ):
        checker.check_verification()
    return sorted(set(checker.findings))


@dataclass(slots=True)
class _Checker:
    path: str
    go: GoSource
    findings: list[Finding] = field(default_factory=list)
    _values: GoValues = field(init=False)
    _starts_anywhere: bool = field(init=False)
    _sends_anywhere: bool = field(init=False)

    def __post_init__(self) -> None:
        self._values = GoValues(self.go)
        everything = range(len(self.go.tokens))
        self._starts_anywhere = any(self._is_method(place, "StartTLS") for place in everything)
        self._sends_anywhere = self._sends(everything)

    def check_sends(self) -> None:
        """Look at each SendMail, Dial and NewClient."""
        for index, _, opening in self.go.calls(_SMTP, "SendMail"):
            self._check_sendmail(index, opening)
        for index, _, opening in self.go.calls(_SMTP, "Dial"):
            self._check_dial(index, opening)

    def _check_sendmail(self, index: int, opening: int) -> None:
        arguments = self.go.arguments(opening)
        if not arguments:
            return
        addresses = self._values.addresses(arguments[0])
        has_login = len(arguments) == 1 or [self.go.tokens[token].text for token in arguments[1]] != ["nil"]
        level = self._port_level(addresses)
        if level is not None:
            message = "SendMail to port 25 sends in plaintext if STARTTLS is not offered"
            self._add(SENDMAIL, index, opening, level, message)
            self._check_plain_auth(index)
        elif not has_login and not addresses[-1].is_loopback:
            message = "SendMail without a login sends in plaintext if STARTTLS is not offered"
            self._add(SENDMAIL, index, opening, Level.WARNING, message)

    def _check_dial(self, index: int, opening: int) -> None:
        addresses = self._values.addresses(range(opening + 1, self.go.closing[opening]))
        if addresses[-1].is_loopback:
            return
        function = self.go.outermost_block(index)
        starts = [place for place in range(index, function.stop) if self._is_method(place, "StartTLS")]
        conditions = [self._condition(place, function) for place in starts]
        level = self._port_level(addresses)
        if None in conditions:
            return
        # The client that goes to another function may begin TLS there.
        is_known = starts or self._sends(function)
        if not is_known and (self._starts_anywhere or not (level is not None or self._sends_anywhere)):
            return
        where = " to port 25" if level else ""
        if Level.WARNING in conditions:
            message = f"Dial{where} goes on in plaintext if STARTTLS is not offered"
        elif conditions:
            message = f"Dial{where}: an option decides whether there is TLS"
        else:
            message = f"Dial{where} without StartTLS: everything goes in plaintext"
        self._add(DIAL, index, opening, max(filter(None, conditions), default=Level.ERROR), message)
        if level is not None:
            self._check_plain_auth(index)

    def _check_plain_auth(self, index: int) -> None:
        """Report the PlainAuth of the function in which port 25 is used."""
        function = self.go.outermost_block(index)
        for place, _, opening in self.go.calls(_SMTP, "PlainAuth", within=function):
            message = "PlainAuth on port 25: whether there is TLS is up to the server"
            self._add(PLAIN_AUTH, place, opening, Level.WARNING, message)

    def check_verification(self) -> None:
        """Look at each InsecureSkipVerify that is not for HTTP."""
        for index, token in enumerate(self.go.tokens):
            if token.kind != "name" or token.text != "InsecureSkipVerify" or self._is_for_http(index):
                continue
            if self.go.is_text(index + 1, ":") or self.go.is_text(index + 1, "="):
                value = self.go.tokens[index + 2]
                if value.text == "true":
                    self._add(
                        UNVERIFIED, index, index + 2, Level.ERROR, "InsecureSkipVerify: any certificate is accepted"
                    )
                elif value.text != "false":
                    message = "InsecureSkipVerify can be turned on by an option"
                    self._add(UNVERIFIED, index, index + 2, Level.NOTE, message)

    def _is_for_http(self, index: int) -> bool:
        """Return whether a token is inside a literal of `http.Transport`."""
        opening = self.go.block_around(index)
        while opening is not None:
            name = self.go.qualified(opening - 3, "net/http") if opening >= 3 else None  # noqa: PLR2004 -- package . Type
            if name and name[0] == "Transport":
                return True
            opening = self.go.block_around(opening)
        return False

    def _port_level(self, addresses: list[Address]) -> Level | None:
        """Return an error for port 25, a warning if it is only the default; None for other ports and this machine."""
        if addresses[-1].is_loopback:
            return None
        if addresses[-1].port == _RELAY_PORT:
            return Level.ERROR
        return Level.WARNING if any(address.port == _RELAY_PORT for address in addresses) else None

    def _condition(self, place: int, function: range) -> Level | None:
        """Return a warning if StartTLS depends on the server's offer, a note for an option; None if it must succeed."""
        opening = self.go.block_around(place)
        while opening is not None and opening >= function.start:
            header = self._header(opening)
            end = self.go.closing[opening]
            # Without an `else` that leaves, the function goes on in plaintext.
            if header and "err" not in header and not (self.go.is_text(end + 1, "else") and self._leaves(end + 2)):
                return Level.WARNING if header & {'"STARTTLS"', "`STARTTLS`", "ok"} else Level.NOTE
            opening = self.go.block_around(opening)
        return None

    def _header(self, opening: int) -> set[str]:
        """Return the tokens of the `if` before a block; none for another block."""
        begin = opening - 1
        while begin > 0 and self.go.tokens[begin].text not in {"if", "{", "}", "func", "for", "switch", "else"}:
            begin -= 1
        return {token.text for token in self.go.tokens[begin:opening]} if self.go.is_text(begin, "if") else set()

    def _leaves(self, opening: int) -> bool:
        """Return whether a block ends the function."""
        if not self.go.is_text(opening, "{"):
            return False
        leaving = {"return", "panic", "Fatal", "Fatalf", "Fatalln", "Exit"}
        return any(self.go.tokens[index].text in leaving for index in range(opening, self.go.closing[opening]))

    def _is_method(self, index: int, *names: str) -> bool:
        return (
            self.go.tokens[index].text in names and self.go.is_text(index - 1, ".") and self.go.is_text(index + 1, "(")
        )

    def _sends(self, function: range) -> bool:
        return any(self._is_method(index, "Mail", "Auth") for index in function)

    def _add(self, rule: Rule, first: int, last: int, level: Level, message: str) -> None:
        token = self.go.tokens[first]
        end = self.go.tokens[self.go.closing.get(last, last)]
        self.findings.append(
            Finding(
                self.path, token.line, self.go.column(token), end.line + end.text.count("\n"), rule.id, level, message
            )
        )
