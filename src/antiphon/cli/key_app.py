"""``antiphon key create``, ``list`` and ``revoke``."""

from __future__ import annotations

from typing import Annotated

import typer

from antiphon.cli.options import Config, Json, Store

app = typer.Typer(
    help="API keys for the server. From the first one on, every request needs one.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def create(
    tenant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Whose key it is. Keys of one tenant see the same conversations, and no others.",
        ),
    ] = None,
    local: Annotated[
        bool,
        typer.Option(
            "--local",
            help="Instead: a key to what this machine keeps without keys, such as the"
            " conversations of `antiphon chat`.",
        ),
    ] = False,
    name: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the key is for: shown in the list.")
    ] = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """Make a key and print it, this once: only its hash is kept.

    Servers that run learn of it within a second.
    """
    from antiphon.cli import key_commands  # loaded on first use

    flags = {"store": store, "config": config}
    key_commands.create_key(flags, key_commands.resolve_tenant(tenant, local=local), name)


@app.command("list")
def list_(as_json: Json = False, store: Store = None, config: Config = None) -> None:
    """List the keys, the oldest first, revoked ones too. The keys themselves are nowhere."""
    from antiphon.cli import key_commands  # loaded on first use

    key_commands.list_keys({"store": store, "config": config}, as_json=as_json)


@app.command()
def revoke(
    key_id: Annotated[
        str, typer.Argument(metavar="ID", help="A key's id, as `antiphon key list` shows it.")
    ],
    store: Store = None,
    config: Config = None,
) -> None:
    """Make a key worthless, from the next request on.

    Answers under way come to their end. What was stored with the key stays its tenant's.
    """
    from antiphon.cli import key_commands  # loaded on first use

    key_commands.revoke_key({"store": store, "config": config}, key_id)
    typer.echo(f"revoked {key_id}")
