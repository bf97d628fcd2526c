"""
Draw what `bench.async_speed` measured: `python -m bench.async_plots FILE FOLDER` writes a plot and a table.

A ratio compares with the better of the two ways to use aiosmtplib, in the same turn.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter

from bench.async_speed import RIVALS
from bench.plots import TEXT, set_style, shown

# The clients of the plot: their labels, colours and lines.
LINES = {
    "securesmtp, asyncio, session": ('send_many, pipelining="session"', "#2a7de1", "-"),
    "securesmtp, asyncio": ("send", "#2a7de1", "--"),
    "securesmtp, to_thread": ("SecureMailer.send in to_thread", "#c9a227", ":"),
    "aiosmtplib": ("aiosmtplib", "#9a9a9a", "-"),
}
DRAWN = {"message": "small", "rtt": 0.02}
SIZES = {"small": "2 kB", "medium": "1 MB"}


def _rate(case: dict[str, Any], client: str) -> float:
    rivals = RIVALS if client == "aiosmtplib" else [client]
    return float(max(1 / case["clients"][each]["seconds"] for each in rivals))


def _draw(cases: list[dict[str, Any]], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(5.5, 3.2))
    tasks = [case["tasks"] for case in cases]
    for client, (label, colour, line) in LINES.items():
        axes.plot(tasks, [_rate(case, client) for case in cases], line, color=colour, marker="o", label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(tasks, [f"{case['tasks']:,}\n{_connections(case)}" for case in cases])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_title("messages a second, by number of tasks (logarithmic)", color=TEXT, fontsize=11, loc="left")
    axes.tick_params(colors=TEXT, length=0)
    axes.grid(visible=True, axis="y", color=TEXT, alpha=0.3)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.legend(frameon=False, labelcolor=TEXT, fontsize=9)
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)


def _connections(case: dict[str, Any]) -> str:
    return f"{case['connections']} connection{'s' * (case['connections'] > 1)}"


def _table(cases: list[dict[str, Any]]) -> str:
    lines = [
        "| message | round trip | tasks | aiosmtplib | `send` | `send_many` | CPU, `send` | CPU, `send_many` |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in cases:
        ratios = [
            " / ".join(
                _ratio(case["clients"].get(f"securesmtp, {loop}{way}", {}).get(what)) for loop in ("asyncio", "trio")
            )
            for what in ("rate", "cpu")
            for way in ("", ", session")
        ]
        rate = _rate(case, "aiosmtplib")
        row = [SIZES[case["message"]], f"{case['rtt'] * 1000:g} ms", f"{case['tasks']:,}", f"{shown(rate)} /s", *ratios]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _ratio(ratio: list[float]) -> str:
    return f"{ratio[0]:.2f}" if ratio[0] < 10 else f"{ratio[0]:.0f}"


def main() -> None:
    """Draw all of it."""
    measured, folder = json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])
    set_style()
    cases = sorted(measured["cases"], key=lambda case: (-ord(case["message"][0]), case["rtt"], case["tasks"]))
    _draw([case for case in cases if all(case[what] == value for what, value in DRAWN.items())], folder / "async.svg")
    others = max(case["noise"]["others"] for case in cases)
    text = f"Machine: {measured['machine']}. Other programs kept up to {others:.1f} of the cores busy meanwhile.\n\n"
    (folder / "async.md").write_text(text + _table(cases), "utf-8")


if __name__ == "__main__":
    main()
