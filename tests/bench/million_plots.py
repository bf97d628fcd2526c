"""
Draw what `bench.million` measured: `python -m bench.million_plots FILE FOLDER` writes a plot and a table.

The plot shows the memory of each process while it sends.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib import pyplot

from bench.machine import Noise
from bench.plots import TEXT, set_style

# By number of processes: colour and line of each process.
LINES = {1: [("#2a7de1", "-")], 2: [("#c9a227", "-"), ("#c9a227", "--")]}
HEAD = (
    *("sender", "messages", "time", "messages a second", "CPU a message", "of which making it"),
    *("CPU of the server", "of the network", "memory", "what went wrong"),
)
COUNTED = {"missing": "lost", "doubled": "doubled", "mixed": "content of another"}


def _draw(runs: list[dict[str, Any]], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(5.5, 3.2))
    for run in runs:
        several = len(run["processes"])
        for number, (process, (colour, line)) in enumerate(zip(run["processes"], LINES[several], strict=True), 1):
            label = "one process" if several == 1 else f"two processes, number {number}"
            seconds, octets = zip(*process["curve"], strict=True)
            megabytes = [value / 1e6 for value in octets]
            axes.plot([value / 60 for value in seconds], megabytes, line, color=colour, label=label)
    axes.set_ylim(bottom=0)
    axes.set_title("memory of a process in MB, by minutes of sending", color=TEXT, fontsize=11, loc="left")
    axes.tick_params(colors=TEXT, length=0)
    axes.grid(visible=True, axis="y", color=TEXT, alpha=0.3)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.legend(frameon=False, labelcolor=TEXT, fontsize=9, loc="lower right")
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)


def _row(run: dict[str, Any]) -> str:
    count, delivered = run["count"], run["delivered"]
    name = {"limit": "limit"}.get(run["client"], f"{len(run['processes'])} process{'es' * (len(run['processes']) > 1)}")
    each = [f"{run[key] / count * 1e6:.0f} µs" for key in ("cpu", "making", "server_cpu", "network_cpu")]
    highest = [f"{process['highest'] / 1e6:.0f} MB" for process in run["processes"] if "highest" in process]
    wrong = ", ".join(f"{delivered[key]} {text}" for key, text in COUNTED.items())
    words = [f"{count:,}", f"{run['seconds'] / 60:.1f} min", f"{count / run['seconds']:,.0f}", *each]
    return f"| {' | '.join([name, *words, ' and '.join(highest) or '-', wrong])} |"


def main() -> None:
    """Draw and write all of it."""
    measured, folder = json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])
    set_style()
    _draw([run for run in measured["runs"] if run["client"] != "limit"], folder / "million.svg")
    lines = [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}", *map(_row, measured["runs"])]
    noise = "; ".join(dict.fromkeys(str(Noise(**run["noise"])) for run in measured["runs"]))
    text = f"Machine: {measured['machine']}. In each run: {noise}.\n\n"
    (folder / "million.md").write_text(text + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
