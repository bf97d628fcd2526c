"""Tokens and tasks: the mailer owns a fetch, so a cancelled send takes nothing from the others."""

from __future__ import annotations

import anyio
import pytest

from conftest import AsyncMailer, Run, Serve
from securesmtp import (
    AsyncSecureMailer,
    AuthenticationError,
    ConfigurationError,
    DeadlineExceededError,
    OAuth2,
    SecureSMTPError,
)
from tasks import cancel_at, slots_in_use
from tokens import Grants

OLD, NEW = "old-token.AAAAAAAA", "new-token.BBBBBBBB"
RAW = b"Subject: x\r\n\r\nx\r\n"


async def send(mailer: AsyncSecureMailer, deadline: float | None = None) -> int:
    """Send a message."""
    receipt = await mailer.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"], deadline=deadline)
    return receipt.reply.code


def test_the_first_of_ten_is_cancelled_and_the_others_get_the_token(
    run: Run, serve: Serve, async_mailer: AsyncMailer
) -> None:
    """It began the fetch, which goes on without it (PITFALLS O5)."""
    grants, calls = Grants(NEW), list[int]()

    async def main() -> None:
        called, release = anyio.Event(), anyio.Event()

        async def token() -> str:
            calls.append(1)
            called.set()
            await release.wait()
            return NEW

        codes = list[int]()
        auth = OAuth2("me", token)
        async with async_mailer(serve(grants.script()), auth=auth, max_connections=10) as mailer:

            async def other() -> None:
                codes.append(await send(mailer))

            async with anyio.create_task_group() as others, anyio.create_task_group() as first:
                first.start_soon(send, mailer)
                await called.wait()
                for _ in range(9):
                    others.start_soon(other)
                tokens = mailer._pool.slots._tokens
                assert tokens is not None
                while len(tokens.fetch()._waiters) < 10:
                    await anyio.lowlevel.checkpoint()
                first.cancel_scope.cancel()
                release.set()
        assert codes == [250] * 9

    run(main)
    assert calls == [1]
    assert grants.shown == [NEW] * 9


def test_a_late_token_is_kept(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """Each send stops at its own deadline; the fetch goes on (PITFALLS O6)."""
    grants, calls = Grants(NEW), list[int]()

    async def main() -> None:
        release = anyio.Event()

        async def token() -> str:
            calls.append(1)
            await release.wait()
            return NEW

        async with async_mailer(serve(grants.script()), auth=OAuth2("me", token)) as mailer:
            while not calls:
                # A busy machine may need more time to connect.
                with pytest.raises(DeadlineExceededError) as caught:
                    await send(mailer, deadline=0.3)
            assert "waiting for the token callable" in str(caught.value)
            release.set()
            assert await send(mailer, deadline=20) == 250

    run(main)
    assert calls == [1]


def test_both_functions_may_be_coroutine_functions(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """Each is awaited, one after the other, before the token is sent."""
    grants, calls = Grants(NEW), list[str]()

    async def token() -> str:
        await anyio.lowlevel.checkpoint()
        calls.append("token")
        return NEW if "refused" in calls else OLD

    async def refused() -> None:
        await anyio.lowlevel.checkpoint()
        calls.append("refused")

    async def main() -> None:
        auth = OAuth2("me", token, on_refused=refused)
        async with async_mailer(serve(grants.script()), auth=auth) as mailer:
            assert await send(mailer) == 250

    run(main)
    assert calls == ["token", "refused", "token"]
    assert grants.shown == [OLD, NEW]


@pytest.mark.parametrize("most", [1, 2])
def test_a_send_inside_a_coroutine_function_does_not_wait_for_itself(
    run: Run, serve: Serve, async_mailer: AsyncMailer, most: int
) -> None:
    """With a free connection or without one: it would wait for the token that it is to fetch."""

    async def main() -> None:
        async def token() -> str:
            await send(mailer)
            return NEW

        mailer = async_mailer(serve(Grants(NEW).script()), auth=OAuth2("me", token), max_connections=most)
        async with mailer:
            with pytest.raises(ConfigurationError) as caught:
                await send(mailer)
            assert isinstance(caught.value.__cause__, ConfigurationError)
            assert "a mailer of its own" in str(caught.value.__cause__.hint)

    run(main)


def test_a_function_that_is_cancelled_is_an_error_of_those_who_wait(
    run: Run, serve: Serve, async_mailer: AsyncMailer
) -> None:
    """No send hangs; the next one fetches anew."""
    grants, calls = Grants(NEW), list[int]()

    async def main() -> None:
        cancelled = anyio.get_cancelled_exc_class()

        async def token() -> str:
            calls.append(1)
            if len(calls) == 1:
                # trio's class cannot be made, only raised by a wait.
                raise cancelled if cancelled.__module__.startswith("asyncio") else SystemExit(3)
            return NEW

        async with async_mailer(serve(grants.script()), auth=OAuth2("me", token)) as mailer:
            with pytest.raises(AuthenticationError, match=r"cancelled|SystemExit") as caught:
                await send(mailer)
            assert caught.value.retryable
            assert await send(mailer) == 250

    run(main)


def test_a_renewal_may_be_cancelled_at_any_wait(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """No slot is lost, no fetch is left behind, and the next send logs in, with the new token if it was fetched."""
    grants = Grants(NEW, ends="close")

    async def main() -> int:
        for wait in range(1, 100):
            grants.shown.clear()
            calls = list[int]()

            async def token(calls: list[int] = calls) -> str:
                await anyio.lowlevel.checkpoint()
                calls.append(1)
                return OLD if len(calls) == 1 else NEW

            async with async_mailer(serve(grants.script()), auth=OAuth2("me", token), max_connections=1) as mailer:
                ended = await cancel_at(wait, send(mailer))
                assert slots_in_use(mailer) == 0
                assert await send(mailer) == 250
            assert len(calls) == 2, wait
            assert grants.shown.count(NEW) <= 2
            if not ended.is_cancelled:
                return wait
        pytest.fail("it has no hundred waits")

    assert run(main) > 10


def test_an_abort_ends_the_wait_for_a_token(run: Run, serve: Serve, async_mailer: AsyncMailer) -> None:
    """`close(abort=True)` does not wait for a source that hangs."""

    async def main() -> None:
        called, errors = anyio.Event(), list[SecureSMTPError]()

        async def token() -> str:
            called.set()
            await anyio.sleep_forever()
            return NEW

        async with async_mailer(serve(Grants(NEW).script()), auth=OAuth2("me", token)) as mailer:

            async def sends() -> None:
                with pytest.raises(SecureSMTPError) as caught:
                    await send(mailer)
                errors.append(caught.value)

            async with anyio.create_task_group() as group:
                group.start_soon(sends)
                await called.wait()
                await mailer.close(abort=True)
        assert len(errors) == 1

    run(main)
