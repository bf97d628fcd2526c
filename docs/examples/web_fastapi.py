"""POST /send-email with FastAPI: `uvicorn web_fastapi:app`."""

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
    MAX_REQUEST,
    refusal,
    send_email,
    start_log,
)
from configured import open_mailer, sender  # configured.py, beside this file


class Mail(BaseModel):
    """What the client sends."""

    to: str
    subject: str
    body: str


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
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
    """Keep one mailer, with its connections, for as long as the process serves."""
    start_log()
    with open_mailer() as mailer:
        yield {"mailer": mailer, "sender": sender()}


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


# Not "async": FastAPI runs it in a thread, so it may wait for the mail server.
@app.post("/send-email")
def send(mail: Mail, request: Request) -> JSONResponse:
    state = request.state
    return JSONResponse(
        *send_email(state.mailer, state.sender, mail.to, mail.subject, mail.body)
    )
