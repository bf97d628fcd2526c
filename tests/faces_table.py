"""
Print how many tests passed over each face of the mailer, by kind: `python tests/faces_table.py FILE`.

The file is what `pytest --all-faces --junitxml=FILE` wrote.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from faces import FACES


def table(junit: str) -> str:
    """Return the table as Markdown; what failed or was skipped is named beside what passed."""
    passed, others = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for case in ElementTree.fromstring(junit).iter("testcase"):  # noqa: S314 -- pytest's own file
        properties = {each.get("name"): each.get("value") for each in case.iter("property")}
        if {"face", "kind"} <= set(properties):
            cell = str(properties["kind"]), str(properties["face"])
            ends = {each.tag for each in case} & {"failure", "error", "skipped"}
            (others if ends else passed)[cell] += 1
    rows = [["tests passed", *FACES]]
    for kind in sorted({kind for kind, _ in passed | others}):
        cells = [(passed[kind, face], others[kind, face]) for face in FACES]
        rows.append([kind, *(f"{good} ({bad} not)" if bad else str(good) for good, bad in cells)])
    rows.insert(1, ["---", *["--:"] * len(FACES)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text("utf-8")))  # noqa: T201 -- a report
