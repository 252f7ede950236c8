"""Runs a page's blocks one after another, as a reader would; a program of its own.

It is given a file of steps, and writes what each printed to another. Python blocks share
one ``__main__``; commands run in between, where they stand on the page.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import types
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any


def main(steps: Path, results: Path) -> None:
    main_module = types.ModuleType("__main__")
    sys.modules["__main__"] = main_module
    printed: list[str] = []
    for step in json.loads(steps.read_text("utf-8")):
        if step["kind"] == "python":
            printed.append(_python(step, main_module.__dict__))
        else:
            printed.append("".join(map(_command, step["commands"])))
    results.write_text(json.dumps(printed), "utf-8")


def _python(step: dict[str, Any], names: dict[str, Any]) -> str:
    # So many lines down, a traceback names the page's own.
    source = "\n" * (step["line"] - 1) + step["text"]
    with redirect_stdout(io.StringIO()) as out:
        exec(compile(source, step["page"], "exec", dont_inherit=True), names)
    return out.getvalue()


def _command(line: str) -> str:
    ran = subprocess.run(
        ["/bin/sh", "-c", line],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        sys.exit(f"{line}\nended with {ran.returncode}\n{ran.stdout}{ran.stderr}")
    # It has to be among what the page may write there.
    sys.stderr.write(ran.stderr)
    return ran.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
