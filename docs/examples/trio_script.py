"""Send from trio: `python trio_script.py one@example.net two@example.net`."""

import sys
from email.message import EmailMessage

import trio

from configured import open_async_mailer, sender  # configured.py, beside this file
from securesmtp import AsyncSecureMailer
from securesmtp.errors import SecureSMTPError


async def greet(mailer: AsyncSecureMailer, address: str) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender(), address, "Hello"
    message.set_content("Is it there?")
    try:
        receipt = await mailer.send(message)
    except SecureSMTPError as error:
        # An error that leaves the task would cancel the other sends.
        print(f"{address}: {error.outcome}: {error}")
    else:
        print(f"{address}: accepted: {receipt.reply}")


async def main(addresses: list[str]) -> None:
    async with open_async_mailer() as mailer, trio.open_nursery() as nursery:
        for address in addresses:
            nursery.start_soon(greet, mailer, address)


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
