"""How quiet the machine is, and how far the rounds of a measurement are apart: what a figure is worth (Linux)."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# More than this makes a measurement noisy: cores that other programs keep busy, the part of the time that the host of a
# virtual machine takes away, processes that wait for a core before the start, and the width of a ratio's rounds.
OTHERS, STOLEN, LOAD, WIDTH = 0.2, 0.02, 1.0, 0.2
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Noise:
    """
    What else the machine did.

    Attributes:
        others: How many cores other programs kept busy.
        stolen: The part of the time that the host took away.
        load: The load average of the minute before.
    """

    others: float
    stolen: float
    load: float

    @property
    def is_noisy(self) -> bool:
        """Whether figures from this time are doubtful."""
        return self.others > OTHERS or self.stolen > STOLEN

    def __str__(self) -> str:
        """Return what is printed."""
        text = f"other programs had {self.others:.2f} cores, the host took {self.stolen:.1%}"
        return f"{'NOISY: ' * self.is_noisy}{text}, load average before {self.load:.2f}"


@contextmanager
def watched(noise: list[Noise]) -> Iterator[None]:
    """Append to *noise* what else the machine did meanwhile; end what you start within it, or it counts as other."""
    began, load = time.monotonic(), os.getloadavg()[0]
    busy, stolen = _ticks()
    own = _own()
    yield
    seconds = time.monotonic() - began
    now_busy, now_stolen = _ticks()
    others = (now_busy - busy) - (_own() - own)
    cores = os.cpu_count() or 1
    noise.append(Noise(max(0.0, others) / seconds, (now_stolen - stolen) / (seconds * cores), load))


def _ticks() -> tuple[float, float]:
    words = Path("/proc/stat").read_text("ascii").splitlines()[0].split()
    user, nice, system, _, _, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq) / _TICKS, steal / _TICKS


def _own() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


@dataclass(frozen=True)
class Ratio:
    """
    A ratio of two clients that took turns.

    Attributes:
        value: That of the best round of each: what else the machine does makes a round worse, never better.
        least: The least of all rounds.
        most: The most of all rounds.
    """

    value: float
    least: float
    most: float

    def inverse(self) -> Ratio:
        """Return the ratio the other way round."""
        return Ratio(1 / self.value, 1 / self.most, 1 / self.least)

    @property
    def is_wide(self) -> bool:
        """Whether the rounds differ so much that the machine did something else."""
        return self.most - self.least > WIDTH * self.value

    def __str__(self) -> str:
        """Return what is printed; a question mark if it is wide."""
        return f"{self.value:.2f} ({self.least:.2f} to {self.most:.2f}){'?' * self.is_wide}"


def description() -> str:
    """Return what the machine is."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
