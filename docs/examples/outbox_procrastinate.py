"""
Send each message once, after the transaction that asked for it: with procrastinate.

`python outbox_procrastinate.py setup` makes the tables. The worker is
`python outbox_procrastinate.py`; run as many as you like, on any machine. The
variables `PGHOST`, `PGDATABASE` and so on say where the database is.
"""

import random
import sys
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
from psycopg.types.json import Jsonb

from securesmtp import Outcome, QueuedMessage, SecureMailer
from securesmtp.errors import LedgerError
from securesmtp.ledger import PostgreSQLLedger, State

Connection = psycopg.Connection[tuple[object, ...]]
# In seconds. No send takes longer than the first; when a claim is older than the
# second, nobody is sending the message any more.
DEADLINE, LONGEST_SEND = 60, 600
TABLE = """
    CREATE TABLE mail (
        key text PRIMARY KEY,
        written timestamptz NOT NULL DEFAULT now(),
        message jsonb, -- NULL when it was accepted
        outcome text -- NULL until nothing is left to do, or a person must decide
    )
"""
# The same key again changes nothing, unless the first try has failed for good.
WRITE = """
    INSERT INTO mail (key, message) VALUES (%s, %s)
    ON CONFLICT (key) DO UPDATE SET message = excluded.message, outcome = NULL
    WHERE mail.outcome IS NULL OR mail.outcome IN ('refused', 'not sent')
    RETURNING key
"""

app = App(connector=PsycopgConnector())
ledger = PostgreSQLLedger("", longest_send=LONGEST_SEND)


def write_mail(connection: Connection, message: EmailMessage, key: str) -> None:
    """Put the message into the outbox, in the transaction of the connection."""
    queued = QueuedMessage.prepare(message, ledger, key=key, connection=connection)
    written = connection.execute(WRITE, (key, Jsonb(queued.as_dict())))
    if written.fetchone():
        send_mail.configure(connection=connection).defer(key=key)


class TryLaterError(Exception):
    """The message was not sent, or another worker is sending it."""


class Later(BaseRetryStrategy):
    """Try again after about 30 s, then after twice as long, up to two hours."""

    def get_retry_decision(
        self, *, exception: BaseException, job: Job
    ) -> RetryDecision | None:
        # After each of them it is safe, because the ledger knows what was sent.
        if not isinstance(exception, TryLaterError | LedgerError | psycopg.Error):
            return None
        seconds = min(30 * 2 ** min(job.attempts, 7), 3600) * random.uniform(1, 2)
        return RetryDecision(retry_in={"seconds": int(seconds)})


@app.task(name="send_mail", queue="mail", retry=Later(), pass_context=True)
def send_mail(context: JobContext, key: str) -> str:
    """Send one message of the outbox, unless the ledger knows that it was sent."""
    mailer: SecureMailer = context.additional_context["mailer"]
    with psycopg.connect() as connection:
        row = connection.execute("SELECT message FROM mail WHERE key = %s", (key,))
        (message,) = row.fetchone() or (None,)
    if message is None:
        return "accepted before"
    queued = QueuedMessage.from_dict(message)
    result = queued.send(mailer, ledger, deadline=DEADLINE)
    entry = ledger.look_up(key)
    if result.retryable or (entry is not None and entry.state is State.CLAIMED):
        raise TryLaterError(result.outcome)
    kept = None if result.outcome is Outcome.ACCEPTED else Jsonb(message)
    with psycopg.connect() as connection:
        update = "UPDATE mail SET outcome = %s, message = %s WHERE key = %s"
        connection.execute(update, (result.outcome, kept, key))
    return result.outcome


@app.periodic(cron="* * * * *")
@app.task(name="retry_stalled", queueing_lock="retry_stalled", pass_context=True)
async def retry_stalled(context: JobContext, timestamp: int) -> None:
    """Try again what a worker was doing when it was killed."""
    for job in await app.job_manager.get_stalled_jobs(task_name="send_mail"):
        await app.job_manager.retry_job(job)


def decide(connection: Connection, key: str, *, arrived: bool) -> None:
    """Write the verdict of a person on a doubtful message; send it if it is lost."""
    ledger.reconcile(key, State.ACCEPTED if arrived else State.NOT_SENT)
    send_mail.configure(connection=connection).defer(key=key)


def main() -> None:
    """Make the tables, or send until a signal comes."""
    if sys.argv[1:] == ["setup"]:
        with app.open(), psycopg.connect() as connection:
            connection.execute(TABLE)
            # Leave this out if the database has a ledger already.
            connection.execute(ledger.schema())
            app.schema_manager.apply_schema()
        return
    with ledger, SecureMailer.from_env() as mailer:
        app.run_worker(
            additional_context={"mailer": mailer},
            concurrency=4,  # as many as the mailer has connections
            shutdown_graceful_timeout=DEADLINE + 10,
        )


if __name__ == "__main__":
    main()
