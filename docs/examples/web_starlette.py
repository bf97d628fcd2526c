"""POST /orders/7/confirm with Starlette: `uvicorn web_starlette:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from outbox import Outbox, open_outbox  # outbox.py, beside this file


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Outbox]]:
    async with open_outbox() as outbox:
        yield {"outbox": outbox}


async def confirm(request: Request) -> JSONResponse:
    message = EmailMessage()
    message["From"], message["To"] = "shop@example.com", "you@example.net"
    message["Subject"] = f"Your order {request.path_params['number']}"
    message.set_content("It is on its way.")
    outbox: Outbox = request.state.outbox
    return JSONResponse(*await outbox.send(message))


app = Starlette(
    routes=[Route("/orders/{number:int}/confirm", confirm, methods=["POST"])],
    lifespan=lifespan,
)
