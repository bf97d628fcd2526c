"""Send each message in a task of its own: for every framework with an event loop."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import NamedTuple

from securesmtp import AsyncSecureMailer
from securesmtp.errors import SecureSMTPError

log = logging.getLogger("outbox")
# In seconds, for one send. A process manager must allow this much at the end.
DEADLINE = 20


class Answer(NamedTuple):
    """The response to the client."""

    body: dict[str, str]
    status: int


class Outbox:
    """One mailer for all requests, and the messages that are being sent."""

    def __init__(self, mailer: AsyncSecureMailer) -> None:
        self.mailer = mailer
        self.tasks: set[asyncio.Task[Answer]] = set()

    async def send(self, message: EmailMessage) -> Answer:
        """Return the response when the outcome is known."""
        task = asyncio.create_task(self._deliver(message))
        self.tasks.add(task)  # the event loop itself does not keep it
        task.add_done_callback(self.tasks.discard)
        # If the request is cancelled, because its client has left, the task goes on.
        return await asyncio.shield(task)

    async def _deliver(self, message: EmailMessage) -> Answer:
        try:
            receipt = await self.mailer.send(message)
        except SecureSMTPError as error:
            log.warning("%s is %s: %s", error.message_id, error.outcome, error)
            return Answer({"outcome": error.outcome}, 503 if error.retryable else 502)
        except asyncio.CancelledError as cancelled:
            # A second Ctrl-C. The cause says what became of the message.
            log.warning("cancelled: %s", cancelled.__cause__)
            raise
        return Answer({"message_id": str(receipt.message_id)}, 200)


@asynccontextmanager
async def open_outbox() -> AsyncIterator[Outbox]:
    """Keep one mailer for as long as the process serves; then let its messages end."""
    async with AsyncSecureMailer.from_env(deadline=DEADLINE) as mailer:
        outbox = Outbox(mailer)
        yield outbox
        if outbox.tasks:
            await asyncio.wait(outbox.tasks)  # not longer than the deadline
