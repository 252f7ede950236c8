"""``python -m antiphon``: the command line, where its program is not on PATH."""

from __future__ import annotations

from antiphon.cli.main import main

if __name__ == "__main__":
    main()
