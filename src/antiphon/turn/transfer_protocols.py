"""Transfer protocols: whole chats written and read at once, and shared links.

Every query takes a tenant; another tenant's data is the same as missing data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

import msgspec

from antiphon.core.images import Blob
from antiphon.core.retention import DAY_SECONDS
from antiphon.core.turns import End, Header


class TurnImport(msgspec.Struct, frozen=True):
    """A turn with its end, of a chat that is imported. Items are encoded (``core.items``).

    ``parent`` is the position of the turn that it continues, None: it begins the chat.
    ``response_id`` is used unless something has it. ``digest`` tells the turn from every other of
    its tenant. ``is_of_words``: it is a hash of what was said, and is erased with that; otherwise
    it is one of names, and stays.
    """

    response_id: str
    created_at: float
    header: Header
    input: Sequence[bytes]
    output: Sequence[bytes]
    end: End
    digest: bytes
    parent: int | None = None
    blobs: Sequence[Blob] = ()
    is_of_words: bool = False


class ConversationImport(msgspec.Struct, frozen=True):
    """The conversation of a chat that is imported. ``head`` is the position of a turn.

    It gets its id unless something has that. Turns are of it whose header names one.
    """

    id: str
    created_at: float
    metadata: dict[str, str] = {}
    head: int | None = None


class ChatImport(msgspec.Struct, frozen=True):
    """A chat that is imported: turns that come after their parents.

    ``created_at`` and ``updated_at`` are when it began and was last written to where it comes
    from. ``title``, ``is_pinned``, ``metadata`` and ``conversation`` are for a chat that is new
    here. Of one that is not, the head of its conversation moves on to new turns that continue it.
    """

    tenant: str
    turns: Sequence[TurnImport]
    created_at: float
    updated_at: float
    title: str | None = None
    is_pinned: bool = False
    metadata: dict[str, str] = {}
    conversation: ConversationImport | None = None


class ChatImportResult(msgspec.Struct, frozen=True):
    """What became of an import: its chat, and the response ids of all turns, in their order.

    ``added`` is how many of them are new, ``erased`` how many were erased here before, and stay
    so: their ids are those that they had. ``conversation_id`` is that of its conversation here.
    """

    chat_id: str
    response_ids: tuple[str, ...]
    added: int
    erased: int
    conversation_id: str | None = None


class TreeTurn(msgspec.Struct, frozen=True):
    """A turn of a chat's tree. ``parent`` is the nearest ancestor that is not erased."""

    response_id: str
    created_at: float
    parent: str | None


class ChatTransferStore(Protocol):
    """Chats as a whole, with all their branches."""

    async def import_chat(self, chat: ChatImport) -> ChatImportResult:
        """Write those turns of a chat that are not there yet, in one transaction.

        A turn is known by its digest, or by its response id. One that was erased is known, too,
        unless no turn of the chat is left: then the chat is written anew.
        """
        ...

    async def tree(self, tenant: str, response_id: str) -> list[TreeTurn]:
        """All turns of the chat that a response belongs to, parents first; none: there is none."""
        ...


class ShareRecord(msgspec.Struct, frozen=True):
    """A link that shows a chain, up to a response, to whoever has it. The secret is nowhere.

    ``expires_at`` None: it is valid until it is revoked.
    """

    id: str
    tenant: str
    response_id: str
    created_at: float
    expires_at: float | None = None


class ShareStore(Protocol):
    """Shared links by the SHA-256 of their secrets. One that has expired does not exist."""

    async def add(self, share: ShareRecord, sha256: bytes) -> None: ...

    async def find(self, sha256: bytes) -> ShareRecord | None:
        """The share with that hash, whosesoever it is. One indexed read."""
        ...

    async def list_shares(
        self, tenant: str, limit: int, *, after: str | None = None, newest_first: bool = True
    ) -> list[ShareRecord]:
        """A tenant's shares by when they were made, from the one behind ``after`` on.

        ``InvalidRequestError``: there is no share ``after``.
        """
        ...

    async def revoke(self, tenant: str, share_id: str) -> bool:
        """From now on it does not exist. False: there was none."""
        ...


#: Seconds for which the record of an import job is stored, from its last change on.
IMPORT_RECORD_LIFETIME: Final = DAY_SECONDS
#: Records that are listed, those that changed last.
MAX_LISTED_IMPORTS: Final = 1000


class ImportRecord(msgspec.Struct, frozen=True):
    """What is stored of an import job: how far it has got, and no words of the file.

    ``counts`` are the chats of each status, ``new_turns`` the turns that were added. ``node_id`` is
    the process that runs the job, and ``is_alive`` whether that does, as of the read.
    """

    id: str
    tenant: str
    created_at: float
    status: Literal["running", "completed", "failed"] = "running"
    source: str | None = None
    progress: float = 0.0
    counts: Mapping[str, int] = {}
    new_turns: int = 0
    completed_at: float | None = None
    error_code: str | None = None
    node_id: str = ""
    is_alive: bool = True


class ImportRecordStore(Protocol):
    """Records of import jobs, for processes other than the one that runs them."""

    async def put(self, record: ImportRecord) -> None:
        """Store a record of this process, in place of an earlier one; old ones are deleted."""
        ...

    async def get(self, tenant: str, import_id: str) -> ImportRecord | None: ...

    async def list_records(self, tenant: str) -> list[ImportRecord]:
        """A tenant's records, ``MAX_LISTED_IMPORTS`` at most, the newest job first."""
        ...


def sorted_imports(records: Sequence[ImportRecord]) -> list[ImportRecord]:
    """Records of jobs, the newest job first."""
    return sorted(records, key=lambda record: (record.created_at, record.id), reverse=True)
