"""API key commands: ``antiphon key create``, ``list`` and ``revoke``."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from antiphon.cli import terminal_output
from antiphon.cli.engine_runner import Flags, load_store_settings, run_with_settings
from antiphon.cli.options import Config, Json, Store
from antiphon.cli.terminal_output import Column
from antiphon.core.api_keys import hash_api_key, is_tenant_name, new_api_key, new_api_key_id
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import ConfigError, InvalidRequestError, NotFoundError
from antiphon.turn.store_protocols import ApiKey, ApiKeyStore

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine

T = TypeVar("T")

_MAX_NAME_LENGTH = 100
_COLUMNS = (
    Column("id"),
    Column("tenant"),
    Column("created"),
    Column("state"),
    Column("name", is_cropped=True),
)

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
            help="Instead: a key to what this machine stores without keys, such as the"
            " conversations of `antiphon chat`.",
        ),
    ] = False,
    name: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the key is for: shown in the list.")
    ] = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """Make a key and print it, this once: only its hash is stored.

    Servers that run accept it within a second.
    """
    create_key({"store": store, "config": config}, resolve_tenant(tenant, local=local), name)


@app.command("list")
def list_(as_json: Json = False, store: Store = None, config: Config = None) -> None:
    """List the keys, the oldest first, revoked ones too. The keys themselves are not stored."""
    list_keys({"store": store, "config": config}, as_json=as_json)


@app.command()
def revoke(
    key_id: Annotated[
        str, typer.Argument(metavar="ID", help="A key's id, as `antiphon key list` shows it.")
    ],
    store: Store = None,
    config: Config = None,
) -> None:
    """Revoke a key, from the next request on.

    Answers under way come to their end. What was stored with the key stays its tenant's.
    """
    revoke_key({"store": store, "config": config}, key_id)
    typer.echo(f"revoked {key_id}")


def resolve_tenant(tenant: str | None, *, local: bool) -> str:
    """The tenant that a new key is for. Raises ``InvalidRequestError``.

    An empty name is refused: it is what an unset variable gives, and must not open what the
    machine's owner has stored.
    """
    if local == (tenant is not None):
        raise InvalidRequestError("say whose key it shall be: --tenant NAME, or --local")
    if tenant is None:
        return DEFAULT_TENANT
    if not tenant:
        raise InvalidRequestError(
            "the tenant's name is empty: --local makes a key to what is stored without keys"
        )
    if not is_tenant_name(tenant):
        raise InvalidRequestError(
            "a tenant's name has up to 64 letters, digits and . _ @ + -, and begins with one of"
            " the first two"
        )
    return tenant


def create_key(flags: Flags, tenant: str, name: str | None) -> None:
    """Make a key. It alone goes to standard output."""
    if name is not None and not (name.isprintable() and 0 < len(name) <= _MAX_NAME_LENGTH):
        raise InvalidRequestError(
            f"a key's name is one line of up to {_MAX_NAME_LENGTH} characters"
        )
    secret = new_api_key()
    key_hash = hash_api_key(secret.encode())
    assert key_hash is not None
    key = ApiKey(new_api_key_id(), tenant, time.time(), name)

    async def add(keys: ApiKeyStore) -> bool:
        is_first = not await keys.has_keys()
        await keys.add(key, key_hash)
        return is_first

    is_first = _with_keys(flags, add, creates_store=True)
    terminal_output.print_output(f"{secret}\n")
    terminal_output.print_note(
        f"{key.id} for {_tenant_label(key)}: save it now, it is not shown again"
    )
    if is_first:
        terminal_output.print_note(
            "from now on every request to a server on this store needs a key"
        )


def list_keys(flags: Flags, *, as_json: bool) -> None:
    """Print the keys: a table, JSON, or tab-separated to a pipe."""
    keys = _with_keys(flags, lambda store: store.list_keys())
    if as_json:
        terminal_output.print_json(keys)
    elif not sys.stdout.isatty():
        terminal_output.print_tsv([_key_row(key) for key in keys])
    elif not keys:
        terminal_output.print_note(
            "no keys: servers on this store serve this machine only, and ask for none"
        )
    else:
        terminal_output.print_table(_COLUMNS, [_key_row(key, in_words=True) for key in keys])


def revoke_key(flags: Flags, key_id: str) -> None:
    """Revoke a key. Raises ``NotFoundError``."""
    if not _with_keys(flags, lambda keys: keys.revoke(key_id)):
        raise NotFoundError(f"there is no key {key_id!r}: `antiphon key list` shows the ids")


def _with_keys(
    flags: Flags, work: Callable[[ApiKeyStore], Awaitable[T]], *, creates_store: bool = False
) -> T:
    settings = load_store_settings(flags, creates_store=creates_store)
    if settings.store == "memory:":
        raise ConfigError("the store memory: ends with its process, and its keys with it")

    async def run(engine: Engine) -> T:
        return await work(engine.stores.api_keys)

    return run_with_settings(settings, run)


def _key_row(key: ApiKey, *, in_words: bool = False) -> tuple[str, str, str, str, str]:
    format_time = terminal_output.format_ago if in_words else terminal_output.format_time
    created = format_time(key.created_at)
    state = "in use" if key.revoked_at is None else "revoked"
    return key.id, _tenant_label(key), created, state, key.name or ""


def _tenant_label(key: ApiKey) -> str:
    return key.tenant or "(local)"
