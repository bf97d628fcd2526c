"""
Send each message once, after the transaction that asked for it: with procrastinate.

`python outbox_procrastinate.py setup` makes the tables. The worker is
`python outbox_procrastinate.py`; run as many as you like, on any machine. Where the
database is says `PGHOST`, `PGDATABASE` and so on.
"""

import os
import random
import sys
from email import message_from_bytes, policy
from email.message import EmailMessage

import psycopg
from procrastinate import (
    App,
    BaseRetryStrategy,
    JobContext,
    PsycopgConnector,
    RetryDecision,
)
from procrastinate.jobs import Job

from securesmtp import SecureMailer
from securesmtp.errors import LedgerError
from securesmtp.ledger import SQLiteLedger, State

# In seconds. No send takes longer than the first; when a claim is older than the
# second, nobody is sending the message any more.
DEADLINE, LONGEST_SEND = 60, 600
TABLE = """
    CREATE TABLE IF NOT EXISTS mail (
        key text PRIMARY KEY,
        content bytea, -- NULL when it was accepted
        outcome text -- NULL until nothing is left to do, or a person must decide
    )
"""

app = App(connector=PsycopgConnector())


def write_mail(
    connection: psycopg.Connection[tuple[object, ...]], message: EmailMessage
) -> None:
    """Put the message into the outbox, in the transaction of the connection."""
    key, content = str(message["Message-ID"]), message.as_bytes(policy=policy.SMTP)
    connection.execute("INSERT INTO mail VALUES (%s, %s)", (key, content))
    send_mail.configure(connection=connection).defer(key=key)


class TryLaterError(Exception):
    """The message was not sent, or another worker is sending it."""


class Later(BaseRetryStrategy):
    """Try again after about 30 s, then after twice as long, up to an hour."""

    def get_retry_decision(
        self, *, exception: BaseException, job: Job
    ) -> RetryDecision | None:
        # After each of them it is safe, because the ledger knows what was sent.
        if not isinstance(exception, TryLaterError | LedgerError | psycopg.Error):
            return None
        seconds = min(30 * 2 ** min(job.attempts, 7), 3600)
        return RetryDecision(retry_in={"seconds": int(seconds * random.uniform(1, 2))})


@app.task(name="send_mail", queue="mail", retry=Later(), pass_context=True)
def send_mail(context: JobContext, key: str) -> str:
    """Send one message of the outbox, unless the ledger knows that it was sent."""
    mailer: SecureMailer = context.additional_context["mailer"]
    ledger: SQLiteLedger = context.additional_context["ledger"]
    with psycopg.connect() as connection:
        row = connection.execute("SELECT content FROM mail WHERE key = %s", (key,))
        (content,) = row.fetchone() or (None,)
    if content is None:
        return "it was accepted before"
    message = message_from_bytes(content, policy=policy.default)
    (result,) = mailer.send_many([message], ledger=ledger)
    entry = ledger.look_up(key)
    if result.retryable or (entry is not None and entry.state is State.CLAIMED):
        raise TryLaterError(str(result))
    with psycopg.connect() as connection:
        connection.execute(
            "UPDATE mail SET outcome = %s, content = CASE WHEN %s THEN content END"
            " WHERE key = %s",
            (result.outcome, result.receipt is None, key),
        )
    return str(result)


@app.periodic(cron="* * * * *")
@app.task(name="retry_stalled", queueing_lock="retry_stalled", pass_context=True)
async def retry_stalled(context: JobContext, timestamp: int) -> None:
    """Try again what a worker was doing when it was killed."""
    for job in await app.job_manager.get_stalled_jobs(task_name="send_mail"):
        await app.job_manager.retry_job(job)


def decide(
    connection: psycopg.Connection[tuple[object, ...]],
    ledger: SQLiteLedger,
    key: str,
    *,
    arrived: bool,
) -> None:
    """Write the verdict of a person on a doubtful message; send it if it is lost."""
    ledger.reconcile(key, State.ACCEPTED if arrived else State.NOT_SENT)
    send_mail.configure(connection=connection).defer(key=key)


def main() -> None:
    """Make the tables, or send until a signal comes."""
    if sys.argv[1:] == ["setup"]:
        with app.open(), psycopg.connect() as connection:
            app.schema_manager.apply_schema()
            connection.execute(TABLE)
        return
    with (
        SQLiteLedger(os.environ["LEDGER"], longest_send=LONGEST_SEND) as ledger,
        SecureMailer.from_env(deadline=DEADLINE) as mailer,
    ):
        app.run_worker(
            additional_context={"mailer": mailer, "ledger": ledger},
            concurrency=4,  # as many as the mailer has connections
            shutdown_graceful_timeout=DEADLINE + 10,
        )


if __name__ == "__main__":
    main()
