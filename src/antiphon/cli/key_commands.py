"""What ``key create``, ``list`` and ``revoke`` do with the store."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import TypeVar

import msgspec
from rich.text import Text

from antiphon.bootstrap import open_engine
from antiphon.cli import terminal_output
from antiphon.cli.interrupt import InterruptHandler, run_interruptible
from antiphon.core.api_keys import hash_api_key, is_tenant_name, new_api_key, new_api_key_id
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import ConfigError, InvalidRequestError, NotFoundError
from antiphon.settings import load_settings
from antiphon.turn.store_protocols import ApiKey, ApiKeyStore

T = TypeVar("T")
Flags = Mapping[str, str | None]

_MAX_NAME_LENGTH = 100


def resolve_tenant(tenant: str | None, *, local: bool) -> str:
    """The tenant that a new key is for. Raises ``InvalidRequestError``.

    An empty name means nobody: it is what an unset variable gives, and must not open what
    the machine's owner has stored.
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
    text = new_api_key()
    digest = hash_api_key(text.encode())
    assert digest is not None
    key = ApiKey(new_api_key_id(), tenant, time.time(), name)

    async def add(keys: ApiKeyStore) -> bool:
        first = not await keys.has_keys()
        await keys.add(key, digest)
        return first

    first = _with_keys(flags, add)
    terminal_output.print_output(f"{text}\n")
    terminal_output.print_note(
        f"{key.id} for {_tenant_label(key)}: keep it now, it is not shown again"
    )
    if first:
        terminal_output.print_note(
            "from now on every request to a server on this store needs a key"
        )


def list_keys(flags: Flags, *, as_json: bool) -> None:
    """Print the keys: a table, JSON, or tab-separated to a pipe."""
    found = _with_keys(flags, lambda keys: keys.list_keys())
    if as_json:
        terminal_output.print_output(
            msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"
        )
    elif not sys.stdout.isatty():
        for key in found:
            terminal_output.print_output("\t".join(_key_row(key)) + "\n")
    elif not found:
        terminal_output.print_note(
            "no keys: servers on this store serve this machine only, and ask for none"
        )
    else:
        rows = [("id", "tenant", "made", "state", "name"), *map(_key_row, found)]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        console = terminal_output.stdout_console()
        for number, (*cells, name) in enumerate(rows):
            line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            style = "" if number else "dim"
            console.print(
                Text(terminal_output.strip_control_chars(f"{line}  {name}").rstrip(), style=style)
            )


def revoke_key(flags: Flags, key_id: str) -> None:
    """Revoke a key. Raises ``NotFoundError``."""
    if not _with_keys(flags, lambda keys: keys.revoke(key_id)):
        raise NotFoundError(f"there is no key {key_id!r}: `antiphon key list` shows the ids")


def _with_keys(flags: Flags, work: Callable[[ApiKeyStore], Awaitable[T]]) -> T:
    return run_interruptible(partial(_run_with_keys, flags, work))


async def _run_with_keys(
    flags: Flags, work: Callable[[ApiKeyStore], Awaitable[T]], _: InterruptHandler
) -> T:
    settings = load_settings(flags, resolve_keys=False)
    if settings.store == "memory:":
        raise ConfigError("the store memory: is gone with its process, and its keys with it")
    async with open_engine(settings) as engine:
        return await work(engine.stores.api_keys)


def _key_row(key: ApiKey) -> tuple[str, str, str, str, str]:
    made = datetime.fromtimestamp(key.created_at).astimezone().isoformat(" ", "seconds")
    state = "in use" if key.revoked_at is None else "revoked"
    return key.id, _tenant_label(key), made, state, key.name or ""


def _tenant_label(key: ApiKey) -> str:
    return key.tenant or "(local)"
