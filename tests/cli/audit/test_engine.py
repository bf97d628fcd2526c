"""What findings say, where they are, and that the engine ends on everything."""

from __future__ import annotations

import ast
import pickle
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path as File
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.audit.programs import Program, programs
from conftest import examples
from securesmtp._cli.audit import engine, expressions
from securesmtp._cli.audit.arguments import text_of
from securesmtp._cli.audit.engine import check_source, is_relevant
from securesmtp._cli.audit.families import Call
from securesmtp._cli.audit.findings import Level, Rule
from securesmtp._cli.audit.machine import Machine
from securesmtp._cli.audit.paths import Path, reduce
from securesmtp._cli.audit.registry import FAMILIES
from securesmtp._cli.audit.source import NotCheckedError
from securesmtp._cli.audit.values import NONE, Const, Unknown, Value

RULES = {rule.id: rule for family in FAMILIES for rule in family.rules}


def _check(source: str) -> list[tuple[int, int, str]]:
    return [(each.line, each.end_line, each.rule) for each in check_source(source.encode(), "program.py")]


# ----------------------------------------------------------------------------------------------------------- families


class _Telegrams:
    """Rules on a library of somebody else."""

    words = (b"telegrams",)
    rule = Rule("XYZ001", "telegram", 319, Level.WARNING, "A telegram", "Telegrams are short.", "pass")
    rules = (rule,)
    bases: Mapping[str, str] = {"telegrams.Fast": "telegrams.Line"}
    exports: Mapping[str, tuple[str, ...]] = {"telegrams": ("Line", "Fast", "wire")}
    annotated = ("telegrams.Line",)

    def handlers(self) -> Mapping[str, Callable[[Call], Value | None]]:
        return {
            "telegrams.Fast": lambda call: call.make("telegrams.Fast()"),
            "telegrams.Line().send": self._send,
            "telegrams.wire": self._send,
        }

    def _send(self, call: Call) -> None:
        text = call.argument(0, "text")
        call.put("%sent", Const(value=True))
        is_sent = call.get("%sent") is not None
        call.notes.report(self.rule, call.node, f"{call.name} {call.qual} {text_of(text or NONE)} {is_sent}")

    def finish(self, tree: ast.Module, machine: Machine, path: Path) -> None:
        if path.get("module", "SLOW") == Const(value=True):
            machine.notes.report(self.rule, tree.body[0], "slow", Level.NOTE)


def test_family_is_given_calls_with_their_arguments() -> None:
    """The interface that rules on other libraries use."""
    source = """\
from telegrams import *
SLOW = True
class Own(Fast):
    pass
def go(line: Line, text="by default"):
    line.send(text=text)
    Own().send("hello")
    wire(**{"text": "quick"})
"""
    findings = check_source(source.encode(), "p.py", (_Telegrams(),))
    assert [(each.line, each.level, each.message) for each in findings] == [
        (1, Level.NOTE, "slow"),
        (6, Level.WARNING, "send telegrams.Line().send None True"),
        (7, Level.WARNING, "send telegrams.Line().send hello True"),
        (8, Level.WARNING, "wire telegrams.wire quick True"),
    ]


# ------------------------------------------------------------------------------------------------------------- places


LONG_CALL = """\
import smtplib
client = smtplib.SMTP("mail.example.com", timeout=9)
client.sendmail(
    "a@example.com",
    [
        "b@example.com",
        "c@example.com",
    ],
    f'''Subject: {subject}

    Dear {name},
    {text}
    ''',
)
"""


def test_span_is_the_whole_call() -> None:
    """PITFALLS-2 A5: `# noqa` counts on any line of the expression."""
    assert _check(LONG_CALL) == [(3, 14, "SMT102")]


def test_span_of_a_handler_is_its_first_line() -> None:
    """`# noqa` is written beside `except`."""
    source = "import smtplib\nwhile True:\n    try:\n        smtplib.SMTP('::1').sendmail(1, 2, 3)\n        break\n"
    source += "    except Exception:\n        pass\n"
    assert _check(source) == [(6, 6, "SMT401")]


def test_column_counts_from_1() -> None:
    """Columns are those that editors show."""
    (finding,) = check_source(b"import smtplib; smtplib.SMTP('m.example', timeout=1).sendmail(1, 2, 3)", "p.py")
    assert (finding.path, finding.column, finding.cell) == ("p.py", 17, 0)


def test_findings_can_be_pickled_and_are_in_the_order_of_the_file() -> None:
    """The command checks files in several processes."""
    source = "import smtplib\ns = smtplib.SMTP('a.example')\ns.starttls()\ns.login('bot', 'Tr0ub4dor&3')\n"
    findings = check_source(source.encode(), "p.py")
    assert pickle.loads(pickle.dumps(findings)) == findings  # noqa: S301 -- it was made one line before
    assert [each.rule for each in findings] == ["SMT121", "SMT111", "SMT301"]


# -------------------------------------------------------------------------------------------------------------- rules


def test_rules_are_complete() -> None:
    """Each rule has a reason, and lines that Python reads."""
    for rule in RULES.values():
        assert rule.cwe in {295, 319, 532, 798, 837, 1088}
        assert rule.name == rule.name.lower()
        assert rule.title
        assert rule.reason.endswith(".")
        ast.parse(f"async def f():\n while True:\n{_indented(rule.fix)}")
    assert len({rule.name for rule in RULES.values()}) == len(RULES)


def _indented(fix: str) -> str:
    lines = fix.splitlines() + (["def f(): pass"] if fix.startswith("@") else [])
    return "\n".join(f"  {line}" for line in lines)


def test_a_thread_that_runs_what_is_not_in_the_file_is_passed_over() -> None:
    """What follows it is checked."""
    source = "import smtplib, threading\ndef send():\n    threading.Thread(target=print).start()\n"
    findings = _check(source + "    smtplib.SMTP('m.example', timeout=1).sendmail(1, 2, 3)\n")
    assert findings == [(4, 4, "SMT102")]


def test_every_rule_is_found_in_a_program() -> None:
    """A rule that nothing breaks is not tested."""
    expected = {rule for program in programs() for _, rule, _ in program.expected}
    # Those on libraries and settings have tables in test_libraries.py and test_settings.py.
    assert expected | {"SMT121"} == {rule for rule in RULES if rule < "SMT5"}


TIME_LIMITS = {
    "smtp": ("smtplib.SMTP('mail.example.com')", True),
    "smtp-keyword": ("smtplib.SMTP('mail.example.com', timeout=5)", False),
    "smtp-position": ("smtplib.SMTP('mail.example.com', 25, None, 5)", False),
    "smtp-none": ("smtplib.SMTP('mail.example.com', timeout=None)", True),
    "smtp-keywords": ("smtplib.SMTP('mail.example.com', **options)", False),
    "smtp-ssl": ("smtplib.SMTP_SSL('mail.example.com', context=context)", True),
    "smtp-ssl-keyword": ("smtplib.SMTP_SSL('mail.example.com', timeout=5, context=context)", False),
    "loopback": ("smtplib.SMTP('localhost')", False),
    "lmtp": ("smtplib.LMTP('/run/lmtp')", False),
    "for-all-sockets": ("smtplib.SMTP('mail.example.com'); socket.setdefaulttimeout(30)", False),
    "for-all-sockets-imported": ("smtplib.SMTP('mail.example.com'); setdefaulttimeout(30)", False),
}


@pytest.mark.parametrize("case", TIME_LIMITS)
def test_missing_time_limit_is_a_note(case: str) -> None:
    """A client without a time limit is named, unless it never leaves the machine."""
    code, expected = TIME_LIMITS[case]
    findings = check_source(f"import smtplib, socket\nclient = {code}\n".encode(), "p.py")
    assert [(each.rule, each.level) for each in findings] == ([("SMT121", Level.NOTE)] if expected else [])


def test_very_long_text_is_no_password() -> None:
    """Nobody's password has 3,000 characters: it is an example of something else."""
    source = f"import smtplib\nsmtplib.SMTP('::1').login('bot', '{'a1' * 750}' + '{'b2' * 750}')\n"
    assert check_source(source.encode(), "p.py") == []


def test_message_says_what_is_wrong() -> None:
    """No context, None, and None by default are told apart."""
    source = "import smtplib\nc = None\ndef f(context=None):\n"
    source += "    smtplib.SMTP('a.example', timeout=1).starttls(context=context)\n"
    source += "smtplib.SMTP('a.example', timeout=1).starttls(context=c)\n"
    source += "smtplib.SMTP_SSL('a.example', timeout=1)\n"
    assert [each.message for each in check_source(source.encode(), "p.py")] == [
        "the context of starttls() is None by default, and then every certificate is accepted",
        "the context of starttls() is None, so every certificate is accepted",
        "SMTP_SSL() without a context accepts every certificate",
    ]


# --------------------------------------------------------------------------------------------------------- robustness


_VERSION_TEST = """\
import smtplib, ssl, sys
from sys import version_info
def send(host, message):
    with smtplib.SMTP(host, 587, timeout=9) as server:
        if {condition}:
            server.starttls(context=ssl.create_default_context())
        else:
            server.starttls()
        server.send_message(message)
"""


@pytest.mark.parametrize(
    ("condition", "is_found"),
    [
        ("sys.version_info >= (3,)", False),
        ("sys.version_info[:2] > (3, 5)", False),
        ("sys.version_info[0:2] >= (3, 6)", False),
        ("version_info[0] >= 3", False),
        ("version_info.major == 3", False),
        ("not sys.version_info[0] == 2", False),
        ("not sys.version_info < (3, 4)", False),
        ("sys.version_info[0] not in (2,)", False),
        ("sys.version_info < (3,)", True),
        ("sys.version_info[0] == 2", True),
        ("sys.version_info >= (3, 13)", True),
        ("sys.version_info[:2] != (3, 12)", True),
        ("sys.version_info >= oldest", True),
        ("sys.version_info >= 3", True),
    ],
)
def test_a_branch_for_pythons_without_maintenance_does_not_run(condition: str, is_found: bool) -> None:  # noqa: FBT001 -- a column of the table
    """What depends on which of the others runs it is still found."""
    found = _check(_VERSION_TEST.format(condition=condition))
    assert [line for line, _, rule in found if rule == "SMT111"] == ([8] if is_found else [])


def test_a_decorator_that_names_no_exception_is_told_so() -> None:
    """The text names no exception that the code does not have."""
    source = "import smtplib\nfrom tenacity import retry\n@retry()\ndef send(message):\n"
    source += "    smtplib.SMTP('localhost', timeout=9).send_message(message)\n"
    (finding,) = check_source(source.encode(), "program.py")
    assert finding.message == "the message is sent again after any exception, and may arrive twice"


def test_file_without_a_word_of_the_rules_is_not_parsed() -> None:
    """20,000 files are read in half a minute."""
    assert not is_relevant(b"import imaplib\n")
    assert is_relevant(b"import SMTPlib\n")
    assert check_source(b"import imaplib\nimaplib.IMAP4('x').login('a', 'Tr0ub4dor&3')\nprint 'x'\n", "p.py") == []


BRANCHES = "import smtplib\ndef f(m, *options):\n    s = smtplib.SMTP('mail.example.com')\n"
HARD = {
    "many-branches": BRANCHES
    + "".join(f"    if a{n}:\n        s.x{n} = {n}\n" for n in range(60))
    + "    s.send_message(m)\n",
    "many-conditions": BRANCHES
    + "    x = ["
    + ", ".join(f"a{n} or b{n}" for n in range(60))
    + "]\n    s.send_message(m)\n",
    "mutual-recursion": "import smtplib\ndef f(s):\n    g(s)\n    s.sendmail(1, 2, 3)\n"
    "def g(s):\n    f(s)\nf(smtplib.SMTP('a.example'))\n",
    "nested-loops": "import smtplib\ns = smtplib.SMTP('a.example')\n"
    + "".join(f"{'    ' * n}for a{n} in b{n}:\n" for n in range(15))
    + f"{'    ' * 15}s.sendmail(1, 2, 3)\n",
    "nested-tries": "import smtplib\ns = smtplib.SMTP('a.example')\n"
    + "".join(f"{'    ' * n}try:\n" for n in range(8))
    + f"{'    ' * 8}s.sendmail(1, 2, 3)\n"
    + "".join(f"{'    ' * n}except E{n}:\n{'    ' * n}    x()\n" for n in reversed(range(8))),
    "functions-that-call-functions": "import smtplib\ndef f0(s):\n    s.sendmail(1, 2, 3)\n"
    + "".join(f"def f{n}(s):\n    f{n - 1}(s)\n    f{n - 1}(s)\n" for n in range(1, 12))
    + "f3(smtplib.SMTP('a.example'))\n",
    "number-that-is-too-long-for-decimal": "import smtplib\nx = 0x1"
    + "f" * 5_000
    + "\nif x == y:\n    smtplib.SMTP(f'{x}', x).sendmail(1, 2, {x: x}[x])\n",
    "text-of-500-parts": "import smtplib\nx = "
    + " + ".join(["a"] * 500)
    + "\nsmtplib.SMTP('a.example').sendmail(1, 2, x)\n",
    "chain-of-elif": BRANCHES
    + "    if m == 0:\n        pass\n"
    + "".join(f"    elif m == {n}:\n        s.ehlo()\n" for n in range(1, 600))
    + "    s.send_message(m)\n",
    "class-of-itself": "import smtplib\nclass A(A): pass\nclass B(smtplib.SMTP, B): pass\n"
    "B('a.example').sendmail(1, 2, 3)\n",
}


@pytest.mark.parametrize("case", HARD)
def test_hard_program_is_checked(case: str) -> None:
    """Branches, recursion and nesting end, and the fault is found."""
    assert "SMT102" in {rule for _, _, rule in _check(HARD[case])}


LONG = {
    "names": lambda n: "".join(f"v{i} = {i}\n" for i in range(4 * n)),
    "sends": lambda n: "".join(f"smtplib.SMTP('a.example').sendmail(1, 2, {i})\n" for i in range(n)),
    "functions": lambda n: "".join(f"def f{i}():\n    s = smtplib.SMTP('a.example')\n    s.x()\n" for i in range(n)),
    "methods": lambda n: (
        "class A:\n    def __init__(self): self.s = smtplib.SMTP('a.example')\n"
        + "".join(f"    def m{i}(self): self.s.sendmail(1, 2, 3)\n" for i in range(n))
    ),
    "chain": lambda n: (
        "def f0(): smtplib.SMTP('a.example').sendmail(1, 2, 3)\n"
        + "".join(f"def f{i + 1}(): f{i}()\n" for i in range(n))
    ),
    "items": lambda n: "x = {" + ", ".join(f"'k{i}': [{i}, 'v']" for i in range(2 * n)) + "}\n",
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", LONG)
def test_time_grows_with_the_length_of_the_file(case: str) -> None:
    """A file of 1 MB takes seconds; with its square it would take an hour."""
    used = []
    for length in (500, 4_000):
        source = f"import smtplib\n{LONG[case](length)}".encode()
        start = process_time()
        check_source(source, "p.py")
        used.append(process_time() - start)
    assert used[1] < 24 * used[0]


def test_frame_of_a_path_is_changed_in_place_until_a_copy_sees_it() -> None:
    """A module of 50,000 names takes no 50,000 copies of them, and no path sees what another one does."""
    path = Path()
    path.put("frame", "a", NONE)
    fields = path.fields("frame")
    path.put("frame", "b", NONE)
    assert path.fields("frame") is fields
    other = path.copy()
    for each in (path, other):
        each.put("frame", "c", Const(id(each)))
    assert (path.get("frame", "c"), other.get("frame", "c")) == (Const(id(path)), Const(id(other)))
    path.settle()
    settled = path.copy()
    path.put("frame", "c", NONE)
    assert settled.get("frame", "c") == Const(id(path))


def test_program_with_too_many_paths_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that takes too long is never clean."""
    monkeypatch.setattr(expressions, "MOST_STEPS_OF_A_FILE", 100)
    with pytest.raises(NotCheckedError, match="too many paths"):
        check_source(HARD["many-branches"].encode(), "p.py")


def test_paths_that_differ_in_what_rules_ask_about_are_kept_apart() -> None:
    """An instance that holds another class is another program."""
    paths = [Path() for _ in range(12)]
    for number, path in enumerate(paths):
        path.put("frame", "number", Const(number))
        path.put("instance/A", "factory", Unknown("f", qual="smtplib.SMTP" if number % 2 else "smtplib.SMTP_SSL"))
    assert len(reduce(paths)) == 2


def test_program_that_is_nested_too_deeply_to_check_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's own depth is no fault of the file."""
    # Python compiles it, and every part is one more call of the interpreter.
    source = "import smtplib\nx = " + "+".join(["a"] * 2_000) + "\n"
    limit = sys.getrecursionlimit()
    monkeypatch.setattr(engine, "_MOST_CALLS", limit)
    with pytest.raises(NotCheckedError, match="nested"):
        check_source(source.encode(), "p.py")
    assert sys.getrecursionlimit() == limit


def _is_checked_or_not_python(source: str) -> bool:
    try:
        check_source(source.encode(), "p.py")
    except NotCheckedError as error:
        return "syntax error" in error.reason
    return True


LINES = [line for program in programs() for line in program.source.splitlines() if line.strip()]


@settings(max_examples=examples(200))
@given(st.lists(st.sampled_from(LINES), max_size=12))
def test_mixed_lines_are_checked_or_not_python(lines: list[str]) -> None:
    """Any lines in any order end in findings, or in a syntax error."""
    source = "import smtplib\n" + "\n".join(line.strip() for line in lines)
    assert _is_checked_or_not_python(source)


@settings(max_examples=examples(150))
@given(st.sampled_from(programs()), st.data())
def test_program_without_some_lines_is_checked_or_not_python(program: Program, data: st.DataObject) -> None:
    """Programs with holes end in findings, or in a syntax error."""
    lines = program.source.splitlines()
    start = data.draw(st.integers(0, len(lines)))
    kept = lines[:start] + lines[start + data.draw(st.integers(1, 3)) :]
    assert _is_checked_or_not_python("\n".join(["import smtplib", *kept]))


@pytest.mark.exhaustive
def test_standard_library_is_checked() -> None:
    """Its own faults are found, and nothing else."""
    folder = File(sysconfig.get_path("stdlib"))
    found = {}
    for path in sorted(folder.rglob("*.py")):
        data = path.read_bytes()
        if "test" in path.parts or "lib2to3" in path.parts or "site-packages" in path.parts or not is_relevant(data):
            continue
        rules = [(each.rule, each.level.name) for each in check_source(data, str(path)) if each.level > Level.NOTE]
        found[str(path.relative_to(folder))] = rules
    # `SMTPHandler` logs in without TLS unless it is told otherwise; `smtpd` (before Python 3.12) relays.
    assert found.pop("smtpd.py", [("SMT102", "ERROR")]) == [("SMT102", "ERROR")]
    assert found.pop("logging/handlers.py") == [("SMT105", "WARNING")]
    assert not any(found.values())
