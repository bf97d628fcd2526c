"""The page on the audit: its table of rules is the rules."""

from __future__ import annotations

from pathlib import Path

from securesmtp._cli.audit.catalogue import RULES

_PAGE = Path(__file__).parents[3] / "docs/how-to/audit.md"
_BEGIN, _END = "<!-- table of rules -->\n", "<!-- end -->\n"


def _table() -> str:
    rows = [
        f"| {rule.id} | {rule.name} | [{rule.cwe}](https://cwe.mitre.org/data/definitions/{rule.cwe}.html)"
        f" | {rule.level.name.lower()} | {rule.title} |"
        for rule in RULES.values()
    ]
    return "\n".join(
        ["", "| id | name | CWE | level | what the code does |", "| --- | --- | --- | --- | --- |", *rows, "", ""]
    )


def test_the_pages_table_is_the_rules() -> None:
    """To write it anew, run this file."""
    text = _PAGE.read_text("utf-8")
    assert text.partition(_BEGIN)[2].partition(_END)[0] == _table()


if __name__ == "__main__":
    before, _, rest = _PAGE.read_text("utf-8").partition(_BEGIN)
    _PAGE.write_text(f"{before}{_BEGIN}{_table()}{_END}{rest.partition(_END)[2]}", "utf-8")
