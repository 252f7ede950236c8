"""Command-line options shared by several commands, as annotated types."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Model: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="Default model: a name, or the path of a GGUF file.  [env: ANTIPHON_MODEL]",
    ),
]
BaseUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="OpenAI-compatible endpoint for every model not configured otherwise."
        "  [env: ANTIPHON_BASE_URL]",
    ),
]
ApiKeyEnv: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="VAR",
        help="Variable (environment or .env) that holds the key for --base-url."
        "  [env: ANTIPHON_API_KEY_ENV]",
    ),
]
Store: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="STORE",
        help="Where turns are stored: sqlite:PATH, postgresql://…, or memory: for nowhere."
        "  [env: ANTIPHON_STORE]",
    ),
]
Config: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="TOML file with settings.  [env: ANTIPHON_CONFIG]"),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ResponseId: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="ID", help="A response's id, as `antiphon list` shows it, or a chat's."),
]
