"""The turns of a store in memory, for the store and all its ledgers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from antiphon.core.ids import response_key
from antiphon.core.items import ERASED_SUMMARY, sums_up
from antiphon.core.retention import Expiry
from antiphon.core.turns import End
from antiphon.errors import HistoryChanged, StoreError
from antiphon.turn.protocols import NewTurn, StoredTurn


class Kept(msgspec.Struct):
    """A turn and its place; ``turn`` None: erased, only id and place are left."""

    response_id: str
    tenant: str
    thread: int
    seq: int
    tree: int
    parent: str | None
    stamp: float
    turn: StoredTurn | None = None
    children: list[str] = []

    @property
    def place(self) -> tuple[int, int]:
        return self.thread, self.seq


class Image(msgspec.Struct):
    """A blob's bytes, and the ids of the turns that use it."""

    data: bytes
    users: set[str]


class Turns:
    """Everything there is, and the rules of its coming and going."""

    def __init__(self, expiry: Expiry) -> None:
        self.expiry = expiry
        self.kept: dict[str, Kept] = {}
        #: The ids of each thread's turns, in order.
        self.threads: dict[int, list[str]] = {}
        self.epochs: dict[int, int] = {}
        #: By tenant and hash.
        self.images: dict[tuple[str, str], Image] = {}
        self._numbers = itertools.count(1)
        self._closed = False

    def check_open(self) -> None:
        if self._closed:
            raise StoreError("The store is closed.")

    def close(self) -> None:
        self._closed = True
        self.kept.clear()
        self.threads.clear()
        self.images.clear()

    # Reading

    def find(self, tenant: str, response_id: str) -> tuple[Kept, StoredTurn] | None:
        """A turn that its tenant may see now."""
        self.check_open()
        kept = self.kept.get(response_id)
        if kept is None or kept.turn is None or kept.tenant != tenant:
            return None
        return None if self.has_expired(kept) else (kept, kept.turn)

    def of(self, tenant: str) -> Iterator[tuple[Kept, StoredTurn]]:
        """All turns that a tenant may see now."""
        self.check_open()
        for kept in self.kept.values():
            found = self.find(tenant, kept.response_id)
            if found is not None:
                yield found

    def has_expired(self, kept: Kept) -> bool:
        cutoff = self.expiry.cutoff(kept.tenant)
        return kept.stamp <= cutoff and self.youngest(kept) <= cutoff

    def youngest(self, kept: Kept) -> float:
        """The latest stamp among a turn and its descendants; -inf: all are erased."""
        return max(
            (one.stamp for one in self.family(kept) if one.turn is not None), default=-math.inf
        )

    def dated(self, kept: Kept, turn: StoredTurn) -> StoredTurn:
        """The turn, with the time when it expires."""
        if self.expiry.lifetimes.of(kept.tenant) is None:
            return turn
        at = self.expiry.at(kept.tenant, self.youngest(kept))
        return msgspec.structs.replace(turn, expires_at=at)

    def upwards(self, response_id: str | None) -> Iterator[Kept]:
        """A turn and its ancestors, erased ones too."""
        while response_id is not None and response_id in self.kept:
            kept = self.kept[response_id]
            yield kept
            response_id = kept.parent

    def family(self, kept: Kept) -> list[Kept]:
        """A turn and its descendants, each behind its parent."""
        found = [kept]
        # Grows as it is walked.
        for one in found:
            found += [self.kept[child] for child in one.children]
        return found

    # Writing

    def begin(self, new: NewTurn) -> None:
        self.check_open()
        if response_key(new.response_id) is None or new.response_id in self.kept:
            raise StoreError(f"{new.response_id!r} is not a new response id.")
        kept = self._place(new)
        kept.turn = StoredTurn(
            response_id=new.response_id,
            created_at=new.created_at,
            header=new.header,
            input=tuple(new.input),
            output=(),
            end=None,
            previous_response_id=kept.parent,
            blobs=self._share(new),
        )
        self.kept[new.response_id] = kept
        self.threads.setdefault(kept.thread, []).append(new.response_id)

    def write(self, response_id: str, items: Sequence[bytes], end: End | None) -> None:
        self.check_open()
        kept = self.kept.get(response_id)
        if kept is None:
            raise StoreError("This turn's beginning was not stored, so the rest cannot be.")
        turn = kept.turn
        if turn is not None and turn.end is None:
            kept.turn = msgspec.structs.replace(turn, output=(*turn.output, *items), end=end)

    def erase(self, kept: Kept) -> None:
        """Leave nothing but the turn's id and place."""
        turn, kept.turn = kept.turn, None
        if turn is not None:
            self.let_go(kept, turn.blobs)

    def forget_summaries(self, kept: Kept) -> None:
        """Leave no words of those summaries that may tell of a turn: its descendants'."""
        for one in self.family(kept):
            if one.turn is not None and any(map(sums_up, one.turn.output)):
                rest = [ERASED_SUMMARY if sums_up(item) else item for item in one.turn.output]
                one.turn = msgspec.structs.replace(one.turn, output=tuple(rest))

    def let_go(self, kept: Kept, digests: Iterable[str]) -> None:
        """The turn uses those images no more."""
        for digest in digests:
            image = self.images[kept.tenant, digest]
            image.users.discard(kept.response_id)
            if not image.users:
                del self.images[kept.tenant, digest]

    def remove(self, kept: Kept) -> None:
        """Leave nothing of a turn that has no children any more."""
        self.erase(kept)
        del self.kept[kept.response_id]
        self.threads[kept.thread].remove(kept.response_id)
        if not self.threads[kept.thread]:
            del self.threads[kept.thread]
        if kept.parent in self.kept:
            self.kept[kept.parent].children.remove(kept.response_id)

    def raise_epoch(self, kept: Kept) -> None:
        self.epochs[kept.tree] = self.epochs.get(kept.tree, 0) + 1

    def check_sources(self, new: NewTurn) -> None:
        """Refuse a turn that was made of what is no longer as its maker saw it."""
        if new.parent is not None and new.parent.tenant != new.tenant:
            raise StoreError("A turn cannot continue another tenant's response.")
        for head in (new.parent, *new.sources):
            if head is None:
                continue
            unchanged = self.epochs.get(head.tree, 0) == head.epoch
            if head.response_id not in self.kept or not unchanged:
                raise HistoryChanged()

    def _place(self, new: NewTurn) -> Kept:
        name, tenant, above = new.response_id, new.tenant, new.parent
        if above is None:
            fresh = next(self._numbers)
            return Kept(name, tenant, fresh, 0, fresh, None, new.created_at)
        parent = self.kept[above.response_id]
        parent.children.append(name)
        newest = self.threads[parent.thread][-1] == parent.response_id
        thread = parent.thread if newest else next(self._numbers)
        stamp = max(new.created_at, above.stamp)
        return Kept(name, tenant, thread, parent.seq + 1, parent.tree, parent.response_id, stamp)

    def _share(self, new: NewTurn) -> dict[str, bytes]:
        """The turn's blobs, the tenant's own copies where it has sent them before."""
        shared = {}
        for blob in new.blobs:
            image = self.images.setdefault((new.tenant, blob.hash), Image(blob.data, set()))
            image.users.add(new.response_id)
            shared[blob.hash] = image.data
        return shared
