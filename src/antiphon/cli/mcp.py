"""``antiphon mcp``: conversations as tools, over the pipes of whoever starts it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from antiphon.cli.options import ApiKeyEnv, BaseUrl, Config, Model, Store


def mcp(
    root: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="A folder that images may be read from; may be given more than once. Folders"
            " that the client shares may be, too.",
        ),
    ] = None,
    model: Model = None,
    base_url: BaseUrl = None,
    api_key_env: ApiKeyEnv = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """Serve the Model Context Protocol on standard input and output.

    For desktop applications and editors, which start it themselves. `antiphon serve` has
    the same at /mcp, over HTTP.
    """
    from antiphon.cli import mcp_stdio  # loaded on first use

    mcp_stdio.serve_stdio(
        {
            "model": model,
            "base_url": base_url,
            "api_key_env": api_key_env,
            "store": store,
            "config": config,
        },
        root or (),
    )
