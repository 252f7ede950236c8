"""Change entries: what a commit changed, as the body of one row of a change log.

They have ids, never words. A chat is named by its tree, which costs a turn nothing; whoever reads
the log looks its id up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, get_args

import msgspec

from antiphon.core.ids import chat_id_of, response_id_of
from antiphon.core.turns import TurnStatus
from antiphon.stores.change_feed import ChangeRow, TenantChange
from antiphon.turn.feed_protocols import Change, ChangeType

#: How many rows of a log stay.
MAX_ROWS: Final = 10_000


class _ChangeEntry(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A change as it is stored, in some thirty bytes: names by their number, ids as keys.

    ``tenant`` None: that of the change before it in the row. The chat is named by its tree, or
    where that is gone by its key.
    """

    type: int
    at: int
    tree: int = 0
    response: bytes | None = None
    status: int | None = None
    tenant: str | None = None
    conversation: str | None = None
    cascade: bool = False
    chat_key: bytes | None = None


_TYPES: Final[tuple[ChangeType, ...]] = get_args(ChangeType)
_STATUSES: Final[tuple[TurnStatus, ...]] = get_args(TurnStatus)
_TYPE_NUMBERS: Final = {name: number for number, name in enumerate(_TYPES)}
_STATUS_NUMBERS: Final = {name: number for number, name in enumerate(_STATUSES)}
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_ChangeEntry]).decode


class ChangeEntries:
    """The changes of one transaction, until ``encode`` makes them a row."""

    def __init__(self) -> None:
        self._entries: list[_ChangeEntry] = []
        self._tenant: str | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def add_turn(  # noqa: PLR0913
        self,
        change_type: ChangeType,
        tenant: str,
        at: float,
        tree: int,
        key: bytes | None,
        *,
        conversation: str | None = None,
        status: TurnStatus | None = None,
    ) -> None:
        """Something of a turn has changed; ``key`` is its response's."""
        number = None if status is None else _STATUS_NUMBERS[status]
        self._entries.append(
            _ChangeEntry(
                _TYPE_NUMBERS[change_type],
                int(at),
                tree,
                key,
                number,
                self._new_tenant(tenant),
                conversation,
            )
        )

    def add_chat(self, change_type: ChangeType, tenant: str, tree: int) -> None:
        """Something of a chat has changed now."""
        self._add_now(change_type, tenant, tree=tree)

    def add_conversation(self, change_type: ChangeType, tenant: str, conversation: str) -> None:
        """Something of a conversation has changed now."""
        self._add_now(change_type, tenant, conversation=conversation)

    def add_erasure(
        self, tenant: str, tree: int, key: bytes | None, *, cascade: bool = False
    ) -> None:
        """A turn was erased now, with its descendants where it cascades."""
        self._add_now("turn.erased", tenant, tree=tree, response=key, cascade=cascade)

    def add_erased_chat(self, tenant: str, key: bytes) -> None:
        """A chat was erased now, or its last turn was."""
        self._add_now("chat.erased", tenant, chat_key=key)

    def _add_now(self, change_type: ChangeType, tenant: str, **fields: Any) -> None:
        number, now = _TYPE_NUMBERS[change_type], int(time.time())
        tenant_or_same = self._new_tenant(tenant)
        self._entries.append(_ChangeEntry(number, now, tenant=tenant_or_same, **fields))

    def _new_tenant(self, tenant: str) -> str | None:
        """The tenant of the next change, None: the same as before."""
        if tenant == self._tenant:
            return None
        self._tenant = tenant
        return tenant

    def encode(self) -> bytes | None:
        """The body of the row, after which there are no entries. None: there were none."""
        if not self._entries:
            return None
        body = _encode(self._entries)
        self._entries, self._tenant = [], None
        return body


def trees_of(body: bytes) -> set[int]:
    """The trees whose chats are named in the body of a row."""
    return {entry.tree for entry in _decode(body) if entry.tree}


def decode_changes(
    row_id: int, mark: int, body: bytes, chat_id: Callable[[int], str | None]
) -> ChangeRow:
    """The changes of a row. ``chat_id`` gives that of a tree, None: its chat is gone.

    What became of a chat that is gone is nobody's any more, but for that.
    """
    tenant = ""
    changes: list[TenantChange] = []
    for entry in _decode(body):
        tenant = tenant if entry.tenant is None else entry.tenant
        changes.append(_change(entry, tenant, chat_id(entry.tree) if entry.tree else None))
    return ChangeRow(row_id, mark, changes)


def _change(logged: _ChangeEntry, tenant: str, chat_id: str | None) -> TenantChange:
    if logged.chat_key is not None:
        chat_id = chat_id_of(logged.chat_key)
    # Where its chat was erased since, nobody is shown the change, which keeps its place.
    viewer = None if logged.tree and chat_id is None else tenant
    return viewer, Change(
        "",
        _TYPES[logged.type],
        logged.at,
        chat_id,
        response_id_of(logged.response) if logged.response else None,
        logged.conversation,
        None if logged.status is None else _STATUSES[logged.status],
        logged.cascade,
    )
