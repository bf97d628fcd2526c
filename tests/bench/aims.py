"""
The aims for speed, each a row: what, the ratio that was measured, the aim, and whether it is met.

`python -m bench.aims` measures all of them in some minutes. Two clients take turns, and the ratio is that of the best
rounds, with the least and the most of all rounds; `?` is a ratio whose rounds differ by more than a fifth. At a
distance, the network is `bench.network`'s, with TCP's own slow start, if this machine can make one (root on Linux).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench import import_time, network
from bench.clients import Task
from bench.machine import Noise, Ratio, description, watched
from bench.turns import Bench, Turn, best, ratio

BOTH = "PIPELINING CHUNKING"


@dataclass(frozen=True)
class Aim:
    """
    One row.

    Attributes:
        name: What is sent, and how.
        client: Which of the clients of `bench.clients` or `bench.async_clients` is ours.
        other: Which one it is compared with.
        what: Whether the messages a second are compared, the CPU time, or the time of one message.
        times: What the ratio shall be: at least, of a rate, else at most. None: no aim was set.
        count: How many messages a turn has.
        task: What else is in the task.
        rtt: A round trip, in seconds.
        milliseconds: What one message may take at most as well.
        other_count: How many messages a turn of the other has, if not as many.
    """

    name: str
    client: str
    other: str
    what: Literal["rate", "cpu", "time"]
    times: float | None
    count: int
    task: dict[str, Any] = field(default_factory=dict)
    rtt: float = 0.0
    milliseconds: float | None = None
    other_count: int | None = None


_RTT = 0.05
_TEN = {"connections": 10}
# The mailer tries the server for overlapping in the time that is measured.
_UNTRIED = {"opening": 1}
AIMS = (
    Aim(
        '"session", 1 connection, 400 messages',
        "securesmtp, session",
        "limit, chunks",
        "rate",
        0.8,
        400,
        _UNTRIED,
        _RTT,
    ),
    Aim(
        *('"session", 10 connections, 4,000 messages', "securesmtp, session", "limit, chunks", "rate", 0.5, 4000),
        *(_TEN | _UNTRIED, _RTT),
    ),
    Aim("EmailMessage, send", "securesmtp, send", "smtplib", "cpu", 0.55, 1000),
    Aim("bytes, send_bytes", "securesmtp, send_bytes", "smtplib", "cpu", 1.0, 1000, {"message": "octets"}),
    Aim("EmailMessage, send_many, 10 connections", "securesmtp", "smtplib", "cpu", 0.5, 2000, _TEN),
    Aim('EmailMessage, "session", 10 connections', "securesmtp, session", "smtplib", "cpu", 0.4, 4000, _TEN, 0.0, 0.2),
    Aim("file of 25 MB", "securesmtp", "limit, chunk", "cpu", 2.0, 1, {"message": "file"}),
    Aim("cold, 2 kB", "securesmtp", "limit, chunk", "time", None, 5, {"cold": True}, 0.1),
    Aim("cold, 1 MB", "securesmtp", "limit, chunk", "time", None, 3, {"cold": True, "message": "medium"}, 0.1),
    Aim("async: EmailMessage, send, 10 tasks", "securesmtp, asyncio", "aiosmtplib, queue", "cpu", 0.8, 1000, _TEN),
    Aim(
        *('async: "session", 10 connections', "securesmtp, asyncio, session", "aiosmtplib, queue", "rate", 5, 4000),
        *(_TEN, _RTT, None, 200),
    ),
)
IMPORT = 1.5


def judge(aim: Aim, turns: list[Turn]) -> dict[str, Any]:
    """Return the row of *aim*."""
    measured = ratio(turns, aim.client, [aim.other], "cpu" if aim.what == "cpu" else "seconds")
    if aim.what == "rate":
        measured = measured.inverse()
    used = best(turns, aim.client, "cpu") * 1000
    kind = {"rate": "messages a second", "cpu": "CPU", "time": "time"}[aim.what]
    found = row(f"{aim.name}: {kind} / {aim.other}", measured, aim.times, at_least=aim.what == "rate")
    found |= {"milliseconds": used, "other_milliseconds": best(turns, aim.other, "cpu") * 1000, "rtt": aim.rtt}
    if aim.milliseconds is not None:
        found["aim"] += f", <= {aim.milliseconds:g} ms"
        found["met"] = found["met"] and used <= aim.milliseconds
    return found


def row(name: str, measured: Ratio, times: float | None, *, at_least: bool = False) -> dict[str, Any]:
    """Return what is printed and written of one aim."""
    met = None if times is None else measured.value >= times if at_least else measured.value <= times
    aim = "" if times is None else f"{'>=' if at_least else '<='} {times:g}"
    return {"name": name, "ratio": asdict(measured), "is_wide": measured.is_wide, "aim": aim, "met": met}


def imports() -> dict[str, Any]:
    """Return the row of the import."""
    times = import_time.measure()
    ours, base = times[import_time.OURS[1]], times[import_time.BASE]
    rounds = [mine / other for mine, other in zip(ours, base, strict=True)]
    # Single imports differ widely; a tenth of them at each end is left out.
    rounds = sorted(rounds)[len(rounds) // 10 : -len(rounds) // 10]
    value = min(ours) / min(base)
    measured = Ratio(value, min(rounds[0], value), max(rounds[-1], value))
    return row(f"`{import_time.OURS[1]}`: CPU / `{import_time.BASE}`", measured, IMPORT)


def show(found: dict[str, Any]) -> str:
    """Return a row as it is printed."""
    verdict = {None: "", True: "met", False: "NOT MET"}[found["met"]]
    used = f"{found['milliseconds']:9.3f}{found['other_milliseconds']:9.3f}" if "milliseconds" in found else " " * 18
    noise = "  (noisy)" * Noise(**found["noise"]).is_noisy
    return f"{found['name']:78}{Ratio(**found['ratio'])!s:>26}{used}  {found['aim']:18}{verdict}{noise}"


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows in Markdown."""
    lines = ["| what | measured | rounds | aim | result |", "| --- | --- | --- | --- | --- |"]
    for each in rows:
        measured = Ratio(**each["ratio"])
        verdict = {None: "", True: "met", False: "not met"}[each["met"]]
        aim = each["aim"].replace(">=", "at least").replace("<=", "at most")
        value = f"{measured.value:.2f}" + (f" ({each['milliseconds']:.2f} ms)" if " ms" in aim else "")
        lines.append(f"| {each['name']} | {value} | {measured.least:.2f} to {measured.most:.2f} | {aim} | {verdict} |")
    noisy = sum(Noise(**each["noise"]).is_noisy for each in rows)
    busy = f"During {noisy} of the {len(rows)} rows, other programs used the machine, too.\n\n" * bool(noisy)
    return f"Machine: {description()}. {busy}".rstrip() + "\n\n" + "\n".join(lines) + "\n"


def main() -> None:
    """Measure all rows, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="rows whose name has this")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="where to write the rows for the page on speed")
    chosen = parser.parse_args()
    if why := network.missing():
        print(f"a proxy holds everything back, and has no slow start: {why}")
    else:
        network.enter("bench.aims")
    print(f"{description()}; RTT {_RTT * 1000:g} ms for rates, 100 ms cold, 0 for CPU; 2 kB unless said otherwise")
    print(f"{'':78}{'ratio of the best (rounds)':>26}{'ms CPU':>9}{'other':>9}  aim", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="securesmtp-bench-") as folder:
        bench = Bench(Path(folder), None)
        for aim in (*AIMS, None):
            if chosen.only not in (aim.name if aim else "import"):
                continue
            noise: list[Noise] = []
            with watched(noise):
                if aim:
                    counts = {aim.client: aim.count, aim.other: aim.other_count or aim.count}
                    tasks = {name: Task(0, "", count, **aim.task) for name, count in counts.items()}
                    turns = bench.run(BOTH, aim.rtt, tasks, chosen.rounds)
                    if not turns[0].keys() >= tasks.keys():
                        print(f"{aim.name}: left out; {', '.join(bench.missing)} is not installed")
                        continue
                    found = judge(aim, turns)
                else:
                    found = imports()
            rows.append(found | {"noise": asdict(noise[0])})
            print(show(rows[-1]), flush=True)
            # After each row, so that a run that is stopped leaves what it has.
            if chosen.table:
                chosen.table.write_text(table(rows), "utf-8")
            if chosen.out:
                measured = {"machine": description(), "own_network": network.is_inside(), "rows": rows}
                chosen.out.write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
    print("Signatures (DKIM) have a program of their own: tests/bench/dkim.py.")


if __name__ == "__main__":
    main()
