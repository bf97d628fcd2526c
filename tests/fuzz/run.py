"""
Let libFuzzer, through atheris, look for an input that breaks a rule: `python -m fuzz.run TARGET FOLDER [-OPTION]`.

`nox -s fuzz` runs this for each target. Options are libFuzzer's (`-max_total_time=60`, `-runs=1000`); what it learns is
kept in FOLDER, never in the corpus that is committed. An input that breaks a rule is written to a file, which is played
again when it is given in place of the FOLDER.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
TARGETS = ("flights", "reply_reader", "scram", "session")

if __name__ == "__main__":
    # Here and nowhere else: the harnesses are run over the corpus on every Python, without atheris.
    import atheris

    program, target, *options = sys.argv
    paths = [Path(option) for option in options if not option.startswith("-")]
    if target not in TARGETS or not paths:
        sys.exit(f"usage: python -m fuzz.run {{{','.join(TARGETS)}}} FOLDER [-OPTION]")
    # The library guides the search, not the harness.
    with atheris.instrument_imports(include=["securesmtp"]):
        check = importlib.import_module(f"fuzz.{target}").check
        # What is imported at its first use is imported now.
        check(b"220 x\r\n")
    if not any(path.is_file() for path in paths):
        # libFuzzer writes to the first folder alone; it takes files or folders, not both.
        options += [str(HERE / "corpus" / target), "-timeout=10", f"-dict={HERE / 'replies.dict'}"]
    atheris.Setup([program, *options], check)
    atheris.Fuzz()
