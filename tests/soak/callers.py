"""The senders of the soak: threads, `send_many`, forked children, new interpreters; and the outcomes they record."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from faces import Face, Faces
from securesmtp import Envelope, Outcome, SecureMailer, SecureSMTPError, TLSPolicy
from servers.real import ALICE

# Seconds for one send; some silences of the proxy are longer.
DEADLINE = 2.5
# A pause that is a little longer than the proxy's "idle", after this number of messages.
_LULL, _LULL_AFTER = 0.12, 250
# A pause after a message that was not sent, or a run would end before the server has restarted.
_BREATH = 0.2
_CHILDREN = 4
# Messages per aborted mailer; it is aborted when half of them have results.
_TO_ONE_MAILER = 80
_TO = "you@soak.example"


@dataclass(frozen=True)
class Plain:
    """The arguments of a mailer, in a form that can be passed to another interpreter."""

    port: int
    ca_pem: str
    connections: int
    pipelining: str
    face: Face

    def mailer(self, faces: Faces) -> SecureMailer:
        """Make the mailer; the event loop of an async one belongs to *faces*."""
        return faces.maker(self.face)(
            "localhost",
            self.port,
            username=ALICE.username,
            password=ALICE.password,
            policy=TLSPolicy(ca_data=self.ca_pem),
            deadline=DEADLINE,
            max_connections=self.connections,
            pipelining=self.pipelining,
        )


@dataclass
class Told:
    """The outcomes that callers got, by message number, and the number of callers that never returned."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    hung: int = 0

    def join(self, threads: list[threading.Thread], seconds: float) -> None:
        """Wait at most *seconds* for all *threads*; print where the others hang."""
        end = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        if hung := sum(thread.is_alive() for thread in threads):
            self.hung += hung
            faulthandler.dump_traceback(all_threads=True)


def message(number: int) -> bytes:
    """Return message number *number*: small, or one in ten of up to 28,000 octets."""
    lines = 1 if number % 10 else number // 10 % 400
    return b"Subject: %d\r\nMessage-ID: <%d@soak.example>\r\n\r\n%s" % (
        number,
        number,
        b".%-60d\r\n" % number * lines,
    )


def started(work: Callable[[], None], count: int = 1) -> list[threading.Thread]:
    """Start the given number of threads."""
    threads = [threading.Thread(target=work, name="caller", daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def by_threads(mailer: SecureMailer, told: Told, numbers: range, count: int) -> list[threading.Thread]:
    """Send from several threads that share the mailer; now and then all of them pause together."""
    lock, left = threading.Lock(), iter(numbers)

    def take() -> int | None:
        with lock:
            number = next(left, None)
            if number is not None and number % _LULL_AFTER == 0:
                time.sleep(_LULL)
            return number

    def work() -> None:
        while (number := take()) is not None:
            told.outcomes[number] = _send(mailer, number)

    return started(work, count)


def by_send_many(mailer: SecureMailer, told: Told, numbers: range) -> list[threading.Thread]:
    """Send from one loop, in a separate thread."""

    def work() -> None:
        for number, result in zip(numbers, mailer.send_many(_envelopes(numbers)), strict=True):
            told.outcomes[number] = _breathing(result.outcome)

    return started(work)


def by_forks(mailer: SecureMailer, told: Told, numbers: range, limit: float) -> list[threading.Thread]:
    """Send from forked children, which inherit the parent's mailer and report through a pipe."""
    threads = []
    for start in range(_CHILDREN):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _be_child(mailer, numbers[start::_CHILDREN], writing, limit)
        os.close(writing)

        def listen(child: int = child, reading: int = reading) -> None:
            with os.fdopen(reading) as report:
                for line in report:
                    number, _, outcome = line.rstrip().partition(" ")
                    told.outcomes[int(number)] = Outcome(outcome)
            os.waitpid(child, 0)

        threads += started(listen)
    return threads


def by_spawn(plain: Plain, told: Told, numbers: range, limit: float) -> list[threading.Thread]:
    """Send from new interpreters, each with its own mailer."""

    def work() -> None:
        with multiprocessing.get_context("spawn").Pool(_CHILDREN) as pool:
            shares = [(plain, numbers[start::_CHILDREN], limit) for start in range(_CHILDREN)]
            for outcomes in pool.starmap(_send_all, shares):
                told.outcomes.update(outcomes)

    return started(work)


def by_aborted(plain: Plain, faces: Faces, told: Told, numbers: range, count: int) -> list[threading.Thread]:
    """Send from several threads over one mailer after the other; abort each while it sends."""

    def work() -> None:
        for start in range(0, len(numbers), _TO_ONE_MAILER):
            mailer, share, mine = plain.mailer(faces), numbers[start : start + _TO_ONE_MAILER], Told()
            threads = by_threads(mailer, mine, share, count)
            while len(mine.outcomes) < len(share) // 2 and any(thread.is_alive() for thread in threads):
                time.sleep(0.005)
            mailer.close(abort=True)
            # No thread has anything left to wait for.
            mine.join(threads, 2 * DEADLINE + len(share) * _BREATH)
            told.outcomes.update(mine.outcomes)
            told.hung += mine.hung

    return started(work)


def _send(mailer: SecureMailer, number: int) -> Outcome:
    try:
        mailer.send_bytes(message(number), mail_from=ALICE.username, recipients=[_TO])
    except SecureSMTPError as error:
        return _breathing(error.outcome)
    return Outcome.ACCEPTED


def _breathing(outcome: Outcome) -> Outcome:
    if outcome is Outcome.NOT_SENT:
        time.sleep(_BREATH)
    return outcome


def _envelopes(numbers: range) -> Iterator[Envelope]:
    return (Envelope(ALICE.username, [_TO], message(number)) for number in numbers)


def _be_child(mailer: SecureMailer, numbers: range, writing: int, limit: float) -> None:
    # A child that hangs prints where, and ends.
    faulthandler.dump_traceback_later(limit, exit=True)
    try:
        _leave_to_parent(mailer)
        with os.fdopen(writing, "w") as report:
            for number in numbers:
                report.write(f"{number} {_send(mailer, number)}\n")
        mailer.close()
    except BaseException:  # noqa: BLE001 -- printed here; the parent also misses the child's results
        traceback.print_exc()
    finally:
        # Without the exit handlers, which would end what belongs to the parent.
        os._exit(0)


def _leave_to_parent(mailer: SecureMailer) -> None:
    """Replace the sockets of the parent's servers, so that they can end; keep the mailer's own."""
    links = [slot.link for pool in mailer._pools.values() for slot in pool.slots]
    kept = {link.sock.fileno() for link in links if link is not None and link.sock is not None}
    nothing = os.open(os.devnull, os.O_RDWR)
    for path in list(Path("/proc/self/fd").iterdir()):
        if int(path.name) not in kept and path.is_symlink() and str(path.readlink()).startswith("socket:"):
            # Not closed: when the parent's object is collected, it would close a descriptor that was reused since.
            os.dup2(nothing, int(path.name))


def _send_all(plain: Plain, numbers: range, limit: float) -> dict[int, Outcome]:
    """Send these messages from a separate process; return each one's outcome."""
    faulthandler.dump_traceback_later(limit, exit=True)
    with ExitStack() as stack, plain.mailer(Faces(stack)) as mailer:
        results = zip(numbers, mailer.send_many(_envelopes(numbers)), strict=True)
        return {number: _breathing(result.outcome) for number, result in results}
