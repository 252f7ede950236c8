"""Secrets, as values that do not show themselves, and found by their names in JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

#: What looks like a key of some provider, whoever it belongs to.
_ANY_KEY: Final = (
    r"\b(?:sk|pk|rk|xai|gsk|hf|nvapi)[-_][\w-]{16,}|\bAIza[\w-]{30,}|(?<=Bearer )[\w.~+/-]{8,}"
)

#: What fields with secrets are called, in any case and with any separators, or end with.
_SECRET_NAMES: Final = frozenset(
    {
        *("authorization", "headers", "apikey", "token", "accesstoken", "secret", "secrets"),
        *("password", "credential", "credentials", "bearer"),
    }
)
_SECRET_ENDINGS: Final = ("apikey", "token", "secret", "secrets", "password", "credentials")


class Secret:
    """A key. Printing, formatting or logging it shows nothing of it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def without_secrets(value: Any) -> Any:
    """JSON without the fields that hold secrets, by their names; itself, if it has none."""
    if isinstance(value, dict):
        inner = {name: without_secrets(it) for name, it in value.items() if not _is_secret(name)}
        is_same = len(inner) == len(value) and all(inner[it] is value[it] for it in inner)
        return value if is_same else inner
    if isinstance(value, list | tuple):
        items = [without_secrets(one) for one in value]
        is_same = all(one is other for one, other in zip(items, value, strict=True))
        return value if is_same else type(value)(items)
    return value


def uri_without_password(uri: str) -> str:
    """A database's URI to show: where it is, without user, password and options.

    Also of one that is not well-formed: a password may hold what should have been encoded.
    """
    scheme, _, rest = uri.partition("://")
    address, _, query = rest.partition("?")
    if "@" in query:
        return f"{scheme}://…"
    folders = [option for option in query.split("&") if option.startswith("host=")]
    return f"{scheme}://{address.rpartition('@')[2]}{'?' if folders else ''}{'&'.join(folders)}"


def _is_secret(name: object) -> bool:
    plain = str(name).lower().replace("_", "").replace("-", "")
    return plain in _SECRET_NAMES or plain.endswith(_SECRET_ENDINGS)


def secret_pattern(secrets: Iterable[str], patterns: Iterable[str] = ()) -> re.Pattern[str]:
    """What a text must not show: the secrets, what these patterns match, and any provider's key."""
    # A shorter one may be a part of a longer one, and the last pattern may match more of a key.
    longest = sorted(filter(None, set(secrets)), key=len, reverse=True)
    return re.compile("|".join([*map(re.escape, longest), *patterns, _ANY_KEY]))
