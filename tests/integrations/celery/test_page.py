"""The page about Celery: its code runs as printed, and what it says of times is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from securesmtp.integrations.celery import mail_task
from securesmtp.testing import MailServer

PAGE = Path(__file__).parents[3] / "docs/how-to/celery.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_page_sends_as_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an application that runs its tasks at once."""
    names: dict[str, Any] = {}
    with MailServer() as server:
        settings = {"BROKER_URL": f"memory://{uuid4()}", "RESULT_URL": "cache+memory://", "LEDGER": str(tmp_path / "l")}
        for name, value in {**server.env(), **settings}.items():
            monkeypatch.setenv(name, value)
        for block in BLOCKS:
            exec(compile(block, PAGE, "exec"), names)  # noqa: S102 -- our own page
            names["app"].conf.task_always_eager = True
        names["send_mail"].close()
        names["app"].close()
    assert [received.subject for received in server.messages] == ["Invoice 17"]
    assert capsys.readouterr().out == f"{names['result'].receipt.reply}\n"


def test_the_times_are_those_that_the_page_says() -> None:
    """Each longer than the one before."""
    table = PAGE.read_text("utf-8").partition("(celery-times)=")[2].partition("A time limit")[0]
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]
    assert numbers == sorted(set(numbers))
    deadline, close, soft, hard = numbers[:4]
    from celery import Celery  # noqa: PLC0415 -- as late as everything that makes an application

    app = Celery("tests", broker="memory://", set_as_current=False)
    made = mail_task(app, mailer=MailServer().mailer, ledger=lambda: pytest.fail("not needed"))
    assert (made.rules.deadline, made.soft_time_limit, made.time_limit) == (deadline, soft, hard)
    assert made.processes.timeout == close
    assert (made.rules.max_retries, made.rules.retry_backoff, made.rules.retry_backoff_max) == (60, 30, 1800)
