"""The rules on Go: what is reported, what is not, and what misleads a search by pattern."""

from __future__ import annotations

from pathlib import Path

import pytest

from securesmtp._cli.audit.catalogue import RULES
from securesmtp._cli.audit.findings import Level
from securesmtp._cli.audit.run import check_file

_IMPORTS = 'import (\n\t"crypto/tls"\n\t"fmt"\n\t"net"\n\t"net/http"\n\t"net/smtp"\n\t"strconv"\n)\n'
# Two clients that begin TLS.
_STARTTLS = "if err := c.StartTLS(cfg); err != nil {\nreturn err\n}\n"
_OFFERED = 'ok, _ := c.Extension("STARTTLS")'


def _check(folder: Path, body: str, imports: str = _IMPORTS, top: str = "") -> list[str]:
    """Return the rule and the level of each finding in a function with this body."""
    path = folder / "mail.go"
    path.write_text(f"package mail\n\n{imports}\n{top}\nfunc send(host string, auth smtp.Auth) error {{\n{body}\n}}\n")
    report = check_file(str(path), frozenset(RULES))
    assert not report.not_checked
    return [f"{found.finding.rule} {found.finding.level.name.lower()}" for found in report.findings]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('smtp.SendMail("mx.example.org:25", auth, from, to, m)', ["SMT901 error"]),
        ('return smtp.SendMail(host+":25", auth, from, to, m)', ["SMT901 error"]),
        ('smtp.SendMail(net.JoinHostPort(host, "25"), auth, from, to, m)', ["SMT901 error"]),
        ("smtp.SendMail(net.JoinHostPort(host, strconv.Itoa(25)), auth, from, to, m)", ["SMT901 error"]),
        ('smtp.SendMail(fmt.Sprintf("%s:25", host), auth, from, to, m)', ["SMT901 error"]),
        ('smtp.SendMail(fmt.Sprintf("%s:%d", host, 25), auth, from, to, m)', ["SMT901 error"]),
        ('smtp.SendMail((host + (":" + "25")), auth, from, to, m)', ["SMT901 error"]),
        ("smtp.SendMail(`mx.example.org:25`,\n\tauth, from, to, m)", ["SMT901 error"]),
        ('addr := host + ":25"\nsmtp.SendMail(addr, auth, from, to, m)', ["SMT901 error"]),
        ('var addr string = host + ":25"\nsmtp.SendMail(addr, auth, from, to, m)', ["SMT901 error"]),
        ('h, p := host, "25"\nsmtp.SendMail(h+":"+p, auth, from, to, m)', ["SMT901 error"]),
        ('port := "25"\nif x {\nport = y\n}\nsmtp.SendMail(host+":"+port, auth, from, to, m)', ["SMT901 warning"]),
        ("smtp.SendMail(addr, nil, from, to, m)", ["SMT901 warning"]),
        ("smtp.SendMail(addrs[0], nil, from, to, m)", ["SMT901 warning"]),
        ('a := net.Join(host, "25")\nsmtp.SendMail(net.Addr+a, nil, from, to, m)', ["SMT901 warning"]),
        (
            f"c, _ := smtp.Dial(addr)\nif {_OFFERED}; ok {{\n{_STARTTLS}}} else if x {{\nreturn err\n}}\nc.Mail(from)",
            ["SMT902 warning"],
        ),
        ('c, err := smtp.Dial("mx.example.org:25")\nc.Mail(from)', ["SMT902 error"]),
        # The client is returned, and nothing in the file begins TLS.
        ('addr := net.JoinHostPort(host, "25")\nreturn smtp.Dial(addr)', ["SMT902 error"]),
        ("return smtp.Dial(addr)\n}\nfunc g(c *smtp.Client) {\nc.Mail(from)", ["SMT902 error"]),
        ("c, err := smtp.Dial(addr)\nc.Auth(auth)", ["SMT902 error"]),
        (f'c, err := smtp.Dial(host+":25")\nif {_OFFERED}; ok {{\n{_STARTTLS}}}\nc.Mail(from)', ["SMT902 warning"]),
        (f'c, err := smtp.Dial(host+":587")\n{_OFFERED}\nif ok {{\n{_STARTTLS}}}\nc.Mail(from)', ["SMT902 warning"]),
        (f'c, err := smtp.Dial(host+":587")\nif useTLS {{\n{_STARTTLS}}}\nc.Mail(from)', ["SMT902 note"]),
        (
            'a := smtp.PlainAuth("", u, p, host)\nsmtp.SendMail(host+":25", a, from, to, m)',
            ["SMT903 warning", "SMT901 error"],
        ),
        (
            'c, err := smtp.Dial(host+":25")\nc.Auth(smtp.PlainAuth("", u, p, host))\nc.Mail(from)',
            ["SMT902 error", "SMT903 warning"],
        ),
        ("cfg := &tls.Config{ServerName: host, InsecureSkipVerify: true}", ["SMT904 error"]),
        ("cfg.InsecureSkipVerify = true", ["SMT904 error"]),
        ("cfg := &tls.Config{InsecureSkipVerify: insecure}", ["SMT904 note"]),
    ],
)
def test_insecure_go_is_reported(tmp_path: Path, body: str, expected: list[str]) -> None:
    """Port 25 in each way to write it, TLS that may be left out, and TLS that verifies nothing."""
    assert _check(tmp_path, body) == expected


@pytest.mark.parametrize(
    "body",
    [
        'smtp.SendMail(host+":587", smtp.PlainAuth("", u, p, host), from, to, m)',
        'smtp.SendMail(host+":2525", auth, from, to, m)',
        'smtp.SendMail("localhost:25", nil, from, to, m)',
        'smtp.SendMail("127.0.0.1:25", nil, from, to, m)',
        'smtp.SendMail(net.JoinHostPort("::1", "25"), nil, from, to, m)',
        '// smtp.SendMail("x:25", nil, from, to, m)',
        '/* smtp.SendMail("x:25", nil,\n from, to, m) */',
        's := `smtp.SendMail("x:25", nil, from, to, m)`',
        's := "smtp.SendMail(\\"x:25\\", nil, from, to, m)"',
        "quote := '\"'\ntick := '`'\nslash := '\\''",
        'other.SendMail("x:25", nil, from, to, m)',
        'x.smtp.SendMail("x:25", nil, from, to, m)',
        f'c, err := smtp.Dial(host+":587")\n{_STARTTLS}c.Mail(from)',
        f'c, err := smtp.Dial(host+":25")\nif {_OFFERED}; !ok {{\nreturn err\n}}\n{_STARTTLS}c.Mail(from)',
        f'c, err := smtp.Dial(host+":587")\nif {_OFFERED}; ok {{\n{_STARTTLS}}} else {{\nreturn err\n}}\nc.Mail(from)',
        'c, err := smtp.Dial("localhost:25")\nc.Mail(from)',
        'c, err := smtp.Dial(addr)\nc.Hello("x")',
        "smtp.SendMail()",
        "cfg := &tls.Config{InsecureSkipVerify: false}",
        "t := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}",
        "if c.InsecureSkipVerify == true {\n}",
        "cfg.InsecureSkipVerify = true // #nosec G402",
        "// #nosec G402 -- a test server\ncfg.InsecureSkipVerify = true",
        "cfg.InsecureSkipVerify = true // #nosec",
        'smtp.SendMail(host+":25", auth, from, to, m) // noqa: SMT901',
        'smtp.SendMail(\n// securesmtp: ignore[SMT901] the relay of this rack\nhost+":25", auth, from, to, m)',
    ],
)
def test_secure_go_is_not_reported(tmp_path: Path, body: str) -> None:
    """A login on port 587, this machine, comments, strings, TLS that must succeed, and what a comment silences."""
    assert _check(tmp_path, body) == []


@pytest.mark.parametrize(
    ("imports", "call"),
    [
        ('import "net/smtp"', "smtp.SendMail"),
        ('import mail "net/smtp"', "mail.SendMail"),
        ('import (\n"fmt"; mail "net/smtp" // the old one\n)', "mail.SendMail"),
        ('import . "net/smtp"', "SendMail"),
        ("import `net/smtp`", "smtp.SendMail"),
    ],
)
def test_each_way_to_import_is_known(tmp_path: Path, imports: str, call: str) -> None:
    """An alias, a group, a dot import and a raw string name the same package."""
    assert _check(tmp_path, f'{call}("x.example:25", auth, from, to, m)', imports) == ["SMT901 error"]


@pytest.mark.parametrize("imports", ['import "example.org/smtp"', 'import _ "net/smtp"', 'import "fmt"'])
def test_another_package_of_the_name_is_not_reported(tmp_path: Path, imports: str) -> None:
    """The path decides, not the name."""
    assert _check(tmp_path, 'smtp.SendMail("x.example:25", auth, from, to, m)', imports) == []


@pytest.mark.parametrize(
    "top",
    [
        'const addr = "x.example:25"',
        'const (\nport = "25"\naddr = "x.example:" + port\n)',
        'var addr = fmt.Sprintf("%s:%s", "x.example", "25")',
    ],
)
def test_constants_of_the_package_are_followed(tmp_path: Path, top: str) -> None:
    """They may be declared in a group and depend on each other."""
    assert _check(tmp_path, "smtp.SendMail(addr, auth, from, to, m)", top=top) == ["SMT901 error"]


def test_a_field_with_one_value_is_followed(tmp_path: Path) -> None:
    """With two values it is not known which one counts."""
    send = 'smtp.SendMail(c.Host+":"+c.Port, auth, from, to, m)'
    one = 'c := Config{Host: "x.example", Port: "25"}\n'
    assert _check(tmp_path, one + send) == ["SMT901 error"]
    assert _check(tmp_path, f'{one}d := Config{{Port: "587"}}\n{send}') == []


def test_the_login_of_another_function_is_not_reported(tmp_path: Path) -> None:
    """It may be for another server; and a declaration may be the last thing of a file."""
    path = tmp_path / "mail.go"
    path.write_text(
        'package m\nimport "net/smtp"\nfunc a() { smtp.SendMail("x.example:25", a, b, c, d) }\n'
        'func b() { smtp.PlainAuth("", u, p, h) }\nvar x = "y"'
    )
    assert [each.finding.rule for each in check_file(str(path), frozenset(RULES)).findings] == ["SMT901"]


def test_a_comment_for_another_rule_of_gosec(tmp_path: Path) -> None:
    """It silences that rule alone."""
    assert _check(tmp_path, "cfg.InsecureSkipVerify = true // #nosec G101") == ["SMT904 error"]


def test_a_constant_that_is_its_own_value_ends(tmp_path: Path) -> None:
    """What goes in a circle is not followed for ever."""
    assert _check(tmp_path, "smtp.SendMail(addr, auth, from, to, m)", top="var addr = addr + addr") == []


@pytest.mark.parametrize(
    "package", ["gopkg.in/gomail.v2", "github.com/wneessen/go-mail", "github.com/xhit/go-simple-mail/v2"]
)
def test_other_mail_packages_are_known_by_their_tls(tmp_path: Path, package: str) -> None:
    """They take a `tls.Config` too; a file without a mail package is not ours."""
    body = "d.TLSConfig = &tls.Config{InsecureSkipVerify: true}"
    assert _check(tmp_path, body, f'import "{package}"') == ["SMT904 error"]
    assert _check(tmp_path, body, 'import "crypto/tls"') == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "package clause"),
        ("func main() {}", "package clause"),
        ('package x\nvar s = "open\n', 'unterminated " on line 2'),
        ("package x\nvar s = `open\n", "unterminated ` on line 2"),
        ("package x\n/* open\n", "unterminated /* on line 2"),
        ("package x\nfunc f() {\n", "unmatched { on line 2"),
        ("package x\nfunc f() )\n", "unmatched ) on line 2"),
        ("package x\nfunc f( {)}\n", "unmatched ) on line 2"),
    ],
)
def test_what_is_no_go_is_not_checked(tmp_path: Path, source: str, reason: str) -> None:
    """It is never clean."""
    path = tmp_path / "mail.go"
    path.write_text(source)
    (missed,) = check_file(str(path), frozenset(RULES)).not_checked
    assert reason in missed.reason


def test_a_finding_has_the_place_of_the_call(tmp_path: Path) -> None:
    """The line, the column in characters, and the last line of a call over several lines."""
    path = tmp_path / "mail.go"
    path.write_text(
        'package x\nimport "net/smtp"\nfunc f() {\n\tç := smtp.SendMail(\n"x.example:25",\nnil, a, b, c)\n}\n'
    )
    (found,) = check_file(str(path), frozenset(RULES)).findings
    assert (found.finding.line, found.finding.column, found.finding.end_line) == (4, 7, 6)
    assert found.finding.level is Level.ERROR
    assert found.code == "ç := smtp.SendMail("


@pytest.mark.parametrize("port", ["465", "587"])
def test_each_way_of_the_fix_is_whole_and_no_finding(tmp_path: Path, port: str) -> None:
    """Each is copied alone: it declares what it uses once, and looks at each error."""
    fix = RULES["SMT901"].fix
    ways, login = fix.split("// After either")
    (body,) = [way for way in ways.split("// Or") if f'"{port}"' in way]
    lines = [*body.splitlines()[1:], *login.splitlines()[1:]]
    assert _check(tmp_path, "\n".join(lines)) == []
    for name in ("config", "client"):
        assert sum(line.partition(":=")[0].startswith(name) for line in lines if ":=" in line) == 1
    opened = [index for index, line in enumerate(lines) if ", err :=" in line]
    assert [lines[index + 1] for index in opened] == ["if err != nil {"] * len(opened)
