"""POST /send-email with FastAPI: `uvicorn web_fastapi:app`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from answers import (  # answers.py, beside this file
    BAD,
    BROKEN,
    LATER,
    MAX_REQUEST,
    SENT,
    Answer,
    compose,
    explain,
    refusal,
    start_log,
)
from configured import open_async_mailer, sender  # configured.py, beside this file
from securesmtp import AsyncSecureMailer

# Messages in memory at the same time, each made of at most MAX_REQUEST bytes.
MAX_WAITING = 400
# At the end of the process: seconds for messages whose clients have left.
GRACE = 10


class Mail(BaseModel):
    """What the client sends."""

    to: str
    subject: str
    body: str


class Outbox:
    """Sends each message in a task that does not end with its request."""

    def __init__(self, mailer: AsyncSecureMailer, sender: str) -> None:
        self.mailer, self.sender = mailer, sender
        self.tasks: set[asyncio.Task[Answer]] = set()

    async def send(self, mail: Mail) -> Answer:
        """Return the response when the outcome is known."""
        if len(self.tasks) >= MAX_WAITING:
            return LATER
        task = asyncio.create_task(self._deliver(mail))
        self.tasks.add(task)  # the event loop itself does not keep it
        task.add_done_callback(self.tasks.discard)
        # If the request is cancelled, because its client has left, the task goes on.
        return await asyncio.shield(task)

    async def _deliver(self, mail: Mail) -> Answer:
        to = mail.to
        message = compose(self.sender, to, mail.subject, mail.body)
        if message is None:
            return BAD
        try:
            # To this one address only, whatever else the field may seem to contain.
            await self.mailer.send(message, mail_from=self.sender, recipients=[to])
        except Exception as error:
            return explain(error, to)
        except asyncio.CancelledError as cancelled:
            # The process ends. The cause is an error with the message's outcome.
            if isinstance(cancelled.__cause__, Exception):
                explain(cancelled.__cause__, to)
            raise
        return SENT

    async def close(self) -> None:
        """Let the tasks finish, and cancel those that need too long."""
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=GRACE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


class Bound:
    """Refuse a long request, by its Content-Length or while it is read."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = int(dict(scope.get("headers", ())).get(b"content-length", 0))
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive() if length <= MAX_REQUEST else {}
            read += len(message.get("body", b""))
            if max(length, read) > MAX_REQUEST:
                raise HTTPException(413)
            return message

        await self.app(scope, bounded, send)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Outbox]]:
    """Keep one mailer, with its connections, for as long as the process serves."""
    start_log()
    async with open_async_mailer() as mailer:
        outbox = Outbox(mailer, sender())
        yield {"outbox": outbox}
        await outbox.close()


app = FastAPI(lifespan=lifespan)
app.add_middleware(Bound)


@app.exception_handler(RequestValidationError)
def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
    """Return 400: FastAPI's own response, 422, repeats what the client sent."""
    return JSONResponse(*BAD)


@app.exception_handler(HTTPException)
def refuse_by_http(request: Request, error: HTTPException) -> JSONResponse:
    """Return FastAPI's own refusals, such as 404 and 405, in our form."""
    allow = (error.headers or {}).get("Allow")
    return JSONResponse(*refusal(error.status_code, allow))


@app.exception_handler(Exception)
def admit(request: Request, error: Exception) -> JSONResponse:
    """Return 500 after a bug; the server logs the exception."""
    return JSONResponse(*BROKEN)


@app.post("/send-email")
async def send(mail: Mail, request: Request) -> JSONResponse:
    outbox: Outbox = request.state.outbox
    return JSONResponse(*await outbox.send(mail))
