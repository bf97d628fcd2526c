"""What each reply code means at each stage."""

from __future__ import annotations

import re

import pytest

from securesmtp._protocol import replies
from securesmtp._protocol.replies import (
    is_auth_continue,
    is_bad_sequence,
    is_closing,
    is_command_unsupported,
    is_end_of_messages,
    is_login_required,
    is_positive,
    is_refusal,
    is_temporary,
    is_too_many_connections,
    is_too_many_recipients,
)
from securesmtp._values import Reply, Stage

# All codes that the reader accepts (RFC 5321 §4.2).
CODES = [code for code in range(200, 600) if code >= 400 or code % 100 < 60]


def test_the_documented_table_is_the_table() -> None:
    """The docstring of the module names the positive codes of every stage that has a reply."""
    rows = re.findall(r"(?m)^([A-Za-z, ]+?) {2,}(2\d[\dz]|354)  ", str(replies.__doc__))
    documented = {
        Stage(name.lower()): {code for code in CODES if re.fullmatch(pattern.replace("z", "."), str(code))}
        for names, pattern in rows
        for name in names.split(", ")
    }
    # No reply is judged at the others: the one to QUIT is ignored.
    stages = set(Stage) - {Stage.CONFIGURATION, Stage.CONNECT, Stage.HANDSHAKE, Stage.QUIT, Stage.UNKNOWN}
    assert documented == {stage: {code for code in CODES if is_positive(stage, code)} for stage in stages}


def test_a_code_from_400_is_a_refusal() -> None:
    """4yz is temporary, 5yz is permanent (RFC 5321 §4.2.1); no refusal is positive at any stage."""
    assert [code for code in CODES if is_refusal(code)] == list(range(400, 600))
    assert [code for code in CODES if is_temporary(code)] == list(range(400, 500))
    assert not [code for code in range(400, 600) for stage in replies._POSITIVE if is_positive(stage, code)]


def test_single_codes_have_a_meaning_of_their_own() -> None:
    """No other code has it."""
    assert [code for code in CODES if is_auth_continue(code)] == [334]
    assert [code for code in CODES if is_closing(code)] == [421]
    assert [code for code in CODES if is_too_many_connections(Reply(code, None, "", b""))] == [432]
    assert [code for code in CODES if is_bad_sequence(code)] == [503]
    assert [code for code in CODES if is_command_unsupported(code)] == [500, 502, 503]


@pytest.mark.parametrize("stage", Stage)
def test_only_a_refused_mail_requires_a_login(stage: Stage) -> None:
    """At RCPT, these codes refuse one recipient (RFC 4954 §6)."""
    codes = [code for code in CODES if is_login_required(stage, code)]
    assert codes == ([530, 535, 538] if stage is Stage.MAIL else [])


@pytest.mark.parametrize("stage", Stage)
def test_only_few_refusals_mean_that_the_connection_is_used_up(stage: Stage) -> None:
    """Unless the server says that there are too many connections: a further one would be refused too."""
    codes = [code for code in CODES if is_end_of_messages(stage, Reply(code, None, "enough", b""))]
    assert codes == {Stage.MAIL: [421, 452], Stage.RCPT: [421]}.get(stage, [])
    assert not is_end_of_messages(stage, Reply(421, "4.7.0", "too many concurrent connections", b""))


def test_a_full_transaction_is_not_a_full_mailbox() -> None:
    """The code is 452 (RFC 5321 §4.5.3.1.10) or 552 (RFC 821). X.2.2 is a full mailbox, X.3.1 a full disk."""
    enhanced = [None, "4.5.3", "5.5.3", "4.2.2", "5.2.2", "4.3.1", "5.3.1", "4.5.0", "2.5.3"]
    full = {(code, each) for code in CODES for each in enhanced if is_too_many_recipients(Reply(code, each, "", b""))}
    assert full == {(452, None), (452, "4.5.3"), (552, None), (552, "5.5.3")}
