"""The page about Celery: its code runs as printed, and what it says of times is true."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from integrations.celery.workers import PATIENCE
from securesmtp.integrations.celery import mail_task
from securesmtp.testing import MailServer

PAGE = Path(__file__).parents[3] / "docs/how-to/celery.md"
BLOCKS = re.findall(r"^<!-- run by: (\w+) -->\n```\w+\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
PROGRAM = [code for _, code in BLOCKS if code.startswith("# tasks.py\n")]
(TESTS,) = (code for _, code in BLOCKS if code.startswith("# test_tasks.py\n"))
(OLD_TASK,) = (code for test, code in BLOCKS if test == "test_the_old_task_sends_what_waits_for_it")


class Shop:
    """
    The page's program in a folder.

    Attributes:
        server: The mail server that its workers send to.
    """

    def __init__(self, folder: Path, server: MailServer) -> None:
        """Write it there."""
        self.folder, self.server = folder, server
        (folder / "tasks.py").write_text("".join(PROGRAM), "utf-8")
        (folder / "test_tasks.py").write_text(TESTS, "utf-8")

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Python there, with the page's variables."""
        settings = {"BROKER_URL": "memory://", "RESULT_URL": "cache+memory://", "LEDGER": str(self.folder / "ledger")}
        others = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**others, **settings, **self.server.env(), **environment},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )

    def execute(self, program: str) -> str:
        """Run a program that imports `tasks`, and return what it prints."""
        done = self.run("-c", program)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def arrived(self) -> list[str]:
        """The subjects that the server has."""
        return sorted(received.subject for received in self.server.messages)


@pytest.fixture
def shop(tmp_path: Path, mail_server: MailServer) -> Shop:
    """Return the page's program."""
    return Shop(tmp_path, mail_server)


EAGER = "import tasks\ntasks.app.conf.task_always_eager = True\n"


def test_the_page_sends_as_printed(shop: Shop) -> None:
    """With an application that runs its tasks at once; and the tests of the page pass."""
    (result,) = (code for _, code in BLOCKS if "SendResult.from_dict" in code)
    assert shop.execute(f"{EAGER}{result}print(result.outcome)") == "250 2.0.0 queued as 1\naccepted\n"
    assert shop.arrived == ["Your order 17"]
    tested = shop.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    assert tested.returncode == 0, tested.stdout
    assert f"{len(re.findall('^def test_', TESTS, re.MULTILINE))} passed" in tested.stdout


WORK = """\
import time, tasks
from celery.contrib.testing.worker import start_worker
tasks.app.send_task("tasks.confirm", [17, "customer@example.net"])
tasks.confirm(18, "customer@example.net")
with tasks.make_ledger() as ledger, start_worker(tasks.app, perform_ping_check=False):
    while any((entry := ledger.look_up(key)) is None or entry.state != "accepted" for key in {keys}):
        time.sleep(0.05)
"""


@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "removed"])
def test_the_old_task_sends_what_waits_for_it(shop: Shop, *, is_kept: bool) -> None:
    """A worker without a task of that name discards it."""
    if not is_kept:
        (shop.folder / "tasks.py").write_text("".join(block for block in PROGRAM if block != OLD_TASK), "utf-8")
    shop.execute(WORK.format(keys=["order-17", "order-18"] if is_kept else ["order-18"]))
    assert shop.arrived == ["Your order 17", "Your order 18"][not is_kept :]


SWEEP = f"""\
from kombu.exceptions import OperationalError
from securesmtp import SecureMailer
{EAGER}
def fail(*_, **__):
    raise OperationalError("the broker is down")
tasks.recent_orders = lambda: [(0, "no address"), *((number, "customer@example.net") for number in (1, 2, 3, 4))]
tasks.make_mailer, make_mailer = lambda: SecureMailer("localhost", 1), tasks.make_mailer
tasks.confirm(4, "customer@example.net")
tasks.send_mail.close()
tasks.make_mailer = make_mailer
tasks.confirm(1, "customer@example.net")
with tasks.make_ledger() as ledger:
    publish, tasks.send_mail.apply_async = tasks.send_mail.apply_async, fail
    try:
        tasks.confirm(2, "customer@example.net")
    except OperationalError:
        print([str(entry.state) for entry in ledger.entries()])
    tasks.send_mail.apply_async = publish
    for _ in range(2):
        tasks.app.tasks[tasks.app.conf.beat_schedule["sweep"]["task"]].delay().get()
        print([str(entry.state) for entry in ledger.entries()])
"""


def test_the_sweep_sends_what_is_missing(shop: Shop) -> None:
    """
    One was not sent, one was, one is prepared because the broker was down, one is in no ledger.

    A wrong one does not stop it.
    """
    after = "['accepted', 'accepted', 'accepted', 'accepted']"
    assert shop.execute(SWEEP).splitlines() == ["['not sent', 'accepted', 'prepared']", after, after]
    assert shop.arrived == [f"Your order {number}" for number in (1, 2, 3, 4)]


def _unit() -> dict[str, str]:
    (unit,) = (code for _, code in BLOCKS if code.startswith("[Service]\n"))
    return dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))


@pytest.mark.parametrize(
    ("fault", "environment", "error"),
    [
        (None, {}, ""),
        ("bad_login", {}, "the server refused the login"),
        ("too_busy", {}, "ConnectError"),
        (None, {"SMTP_PASSWD": "x"}, "SMTP_PASSWD"),
    ],
    ids=["right", "login", "down", "setting"],
)
def test_the_unit_checks_the_mailer_before_it_starts(
    shop: Shop, fault: Any, environment: dict[str, str], error: str
) -> None:
    """A worker itself would find out at its first message, and try again for a day."""
    shop.server.fault = fault
    _, option, program = shlex.split(_unit()["ExecStartPre"])
    done = shop.run(option, program, **environment)
    assert (done.returncode == 0) == (error == "")
    assert error in done.stderr
    assert shop.arrived == []


def test_the_times_are_those_that_the_page_says() -> None:
    """Each longer than the one before."""
    table = PAGE.read_text("utf-8").partition("(celery-times)=")[2].partition("A time limit")[0]
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]
    assert numbers == sorted(set(numbers))
    deadline, close, soft, hard, longest_send, platform, _ = numbers
    assert f"longest_send={longest_send})" in PROGRAM[0]
    assert _unit()["TimeoutStopSec"] == str(platform)
    from celery import Celery  # noqa: PLC0415 -- as late as everything that makes an application

    app = Celery("tests", broker="memory://", set_as_current=False)
    made = mail_task(app, mailer=MailServer().mailer, ledger=lambda: pytest.fail("not needed"))
    assert (made.rules.deadline, made.soft_time_limit, made.time_limit) == (deadline, soft, hard)
    assert made.processes.timeout == close
    assert (made.rules.max_retries, made.rules.retry_backoff, made.rules.retry_backoff_max) == (60, 30, 1800)
