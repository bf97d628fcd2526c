"""
What importing costs, beside `import smtplib, ssl, email.message`: the medians of one run, and their ratios.

`import securesmtp` loads nothing until a name is used; what that costs then is the third line.

Each import is timed in a process of its own, the two in turn, so that what else the machine does meets both.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 40
BASE = "import smtplib, ssl, email.message"
OURS = ("import securesmtp", "from securesmtp import SecureMailer")


def seconds(statement: str) -> float:
    """Return the CPU time that *statement* takes in a new interpreter, without the interpreter's own start."""
    # By the clock it is the same on a machine that does nothing else.
    program = f"import time; begin = time.process_time(); {statement}; print(time.process_time() - begin)"
    # -I: no user site, and nothing from this folder.
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure() -> dict[str, list[float]]:
    """Return the times of each statement, in the order in which they took turns."""
    times: dict[str, list[float]] = {statement: [] for statement in (BASE, *OURS)}
    for statement in times:
        # The first one writes or reads the byte code.
        seconds(statement)
    for _ in range(ROUNDS):
        for statement, measured in times.items():
            measured.append(seconds(statement))
    return times


def main() -> None:
    """Measure and print."""
    times = measure()
    base = statistics.median(times[BASE])
    for statement, measured in times.items():
        median = statistics.median(measured)
        print(f"{median * 1000:7.1f} ms {median / base:6.2f} x  {statement}")


if __name__ == "__main__":
    main()
