"""POST /orders/7/confirm with Litestar: `uvicorn web_litestar:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage

from litestar import Litestar, Response, post
from litestar.datastructures import State
from litestar.params import FromPath

from outbox import open_outbox  # outbox.py, beside this file


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    async with open_outbox() as app.state.outbox:
        yield


@post("/orders/{number:int}/confirm")
async def confirm(number: FromPath[int], state: State) -> Response[dict[str, str]]:
    message = EmailMessage()
    message["From"], message["To"] = "shop@example.com", "you@example.net"
    message["Subject"] = f"Your order {number}"
    message.set_content("It is on its way.")
    body, status = await state.outbox.send(message)
    return Response(body, status_code=status)


app = Litestar(route_handlers=[confirm], lifespan=[lifespan])
