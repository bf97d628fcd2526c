"""
Draw what `bench.speed` measured: `python -m bench.plots FILE FOLDER` writes plots and a table for the page on speed.

The plots have no ground of their own and letters of a middle grey, which read on a light page and on a dark one.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.patches import Patch

mpl.use("svg")

TEXT = "#808080"
# By the first word of a client's name: colour, and what the legend says.
GROUPS = {
    "securesmtp": ("#2a7de1", "this library"),
    "": ("#9a9a9a", "another client"),
    "limit": ("#c9a227", "limit: prepared bytes, no library"),
}
LABELS = {
    "securesmtp": "send_many",
    "securesmtp, send": "send",
    "securesmtp, allow": 'send_many, partial="allow"',
    "securesmtp, off": 'send_many, pipelining="off"',
    "securesmtp, session": 'send_many, pipelining="session"',
    "securesmtp, asyncio": "AsyncSecureMailer.send",
    "limit, lockstep": "limit, one command at a time",
    "limit, pipelined": "limit, commands together",
    "limit, content-first": "limit, content with the next commands",
    "limit, chunk": "limit, commands and content together",
    "limit, chunks": "limit, many messages in flight",
}
# Case, what is drawn, its title, how a value becomes it, and the name of the file.
PLOTS = (
    ("one connection, CHUNKING", "seconds", "messages a second, one connection, round trip 50 ms", "rate", "one"),
    ("ten connections, CHUNKING", "seconds", "messages a second, ten connections, round trip 50 ms", "rate", "ten"),
    ("2 kB, no distance", "cpu", "CPU of a small message in ms, server on this machine", "milli", "small-cpu"),
    ("25 MB attached", "cpu", "CPU of a message of 25 MB in seconds", "plain", "large-cpu"),
    ("25 MB attached", "memory", "memory for a message of 25 MB in MB", "mega", "large-memory"),
)
# The README's plot: fewer clients, a linear scale, and so narrow that it can be read on a phone.
SHORT = {
    "smtplib": "smtplib",
    "aiosmtplib": "aiosmtplib",
    "nodemailer": "nodemailer",
    "securesmtp": "securesmtp: send_many",
    "securesmtp, session": 'securesmtp: send_many,\npipelining="session"',
}
# The columns of the README's table.
README = ("smtplib", "nodemailer", "securesmtp", "securesmtp, session")
_CONVERTED = {
    "rate": lambda value: 1 / value,
    "plain": lambda value: value,
    "milli": lambda value: value * 1e3,
    "mega": lambda value: value / 1e6,
}


def set_style() -> None:
    """Keep text as text: it is in the page's letters, and can be searched."""
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "securesmtp", "font.family": "sans-serif"}


def _draw(values: dict[str, float], title: str, path: Path, *, is_descending: bool, is_short: bool = False) -> None:
    ordered = sorted(values, key=values.__getitem__, reverse=is_descending)
    figure, axes = pyplot.subplots(figsize=(2.2 if is_short else 5, 0.3 * len(ordered) + 0.5))
    groups = [next((group for group in ("securesmtp", "limit") if name.startswith(group)), "") for name in ordered]
    labels = [LABELS.get(name, name) for name in ordered]
    bars = axes.barh(labels, [values[name] for name in ordered], color=[GROUPS[group][0] for group in groups])
    legend = [Patch(color=colour, label=text) for group, (colour, text) in GROUPS.items() if group in groups]
    # Below the bars.
    style: dict[str, Any] = {"frameon": False, "labelcolor": TEXT, "fontsize": 9, "loc": "upper center"}
    figure.legend(handles=legend, ncols=len(legend), bbox_to_anchor=(0.4, 0.08), **style)
    axes.bar_label(bars, [shown(values[name]) for name in ordered], color=TEXT, padding=3)
    if not is_short and max(values.values()) > 30 * min(values.values()):
        axes.set_xscale("log")
        title += " (logarithmic)"
    axes.set_title(title, color=TEXT, fontsize=11, loc="left")
    axes.tick_params(colors=TEXT, length=0)
    # Each bar has its value as a label.
    axes.xaxis.set_visible(False)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)


def shown(value: float) -> str:
    """Return *value* with three digits, or as a whole number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(targets: list[dict[str, Any]]) -> str:
    """Return what was aimed at, and what came of it."""
    lines = ["| case | securesmtp | beside | measured | aim |", "| --- | --- | --- | --- | --- |"]
    for each in targets:
        kind = each["client"].removeprefix("securesmtp").removeprefix(", ") or "default"
        aim = f"{'at least' if each['what'] == 'rate' else 'at most'} {each['times']:g}"
        what = {"rate": "messages a second", "time": "seconds"}.get(each["what"], each["what"])
        spread = f"{each['least']:.3g} to {each['most']:.3g}{'' if each['met'] else ', not met'}"
        got = f"{each['ratio']:.3g} x {what} ({spread})"
        lines.append(f"| {each['case']} | {kind} | {', '.join(each['others'])} | {got} | {aim} |")
    return "\n".join(lines) + "\n"


def update_readme(path: Path, cases: dict[str, dict[str, Any]]) -> None:
    """Write the measured rates into the README's table and into the description of its picture."""
    text = path.read_text("utf-8")
    rates = {
        offered: {client: f"{1 / took['seconds']:.3g}" for client, took in cases[f"one connection, {case}"].items()}
        for offered, case in (("PIPELINING and CHUNKING", "CHUNKING"), ("PIPELINING", "PIPELINING"))
    }
    for offered, found in rates.items():
        row = " | ".join([offered, *(found[name] for name in README)])
        text = re.sub(rf"^\| {offered} \|.*$", f"| {row} |", text, flags=re.MULTILINE)
    found = rates["PIPELINING and CHUNKING"]
    session = f'with pipelining="session" {found["securesmtp, session"]}'
    others = ", ".join(f"{name} {found[name]}" for name in ("nodemailer", "smtplib", "aiosmtplib"))
    described = f"![Messages a second over one connection: securesmtp {found['securesmtp']}, {session}; {others}]"
    picture = "(docs/explanation/speed/short.svg)"
    text = re.sub(rf"!\[[^]]+\]{re.escape(picture)}", textwrap.fill(described + picture, 120), text)
    path.write_text(text, "utf-8")


def main() -> None:
    """Draw all of it; with a third argument, update that README."""
    measured, folder = json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])
    set_style()
    cases = {case["name"]: case["clients"] for case in measured["cases"]}
    for case, what, title, unit, name in PLOTS:
        if case in cases:
            values = {client: _CONVERTED[unit](took[what]) for client, took in cases[case].items()}
            _draw(values, title, folder / f"{name}.svg", is_descending=unit != "rate")
            if name == "one":
                short = {label: values[client] for client, label in SHORT.items() if client in values}
                _draw(short, "messages a second", folder / "short.svg", is_descending=False, is_short=True)
    if len(sys.argv) > 3:
        update_readme(Path(sys.argv[3]), cases)
    (folder / "targets.md").write_text(_table(measured["targets"]), "utf-8")


if __name__ == "__main__":
    main()
