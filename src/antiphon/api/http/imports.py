"""Import endpoints: ``/v1/import``. The body is the file, whatever program wrote it."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import tenant_of
from antiphon.api.common.body import ClientDisconnected, query_params
from antiphon.api.common.node_client import NodeClient, Operation
from antiphon.api.http.asgi_responses import send_json
from antiphon.api.http.pagination import items_after, list_body, parse_limit, parse_order
from antiphon.errors import BodyTooLargeError, InvalidRequestError, NodeUnreachableError
from antiphon.transfer.chat_importer import CHAT_STATUSES
from antiphon.transfer.import_jobs import (
    INTERRUPTED_CODE,
    INTERRUPTED_MESSAGE,
    ImportJob,
    ImportJobs,
)
from antiphon.turn.transfer_protocols import ImportRecord

#: Bytes of a file.
MAX_FILE_BYTES: Final = 4 << 30
#: Up to so many a file is held in memory, and so many are written to the disk at once.
_MEMORY_BYTES: Final = 8 << 20
_WRITE_BYTES: Final = 1 << 20
#: Reports in one answer.
_PAGE: Final = "100"
_MAX_DIGITS: Final = 9

_encode = msgspec.json.Encoder().encode


class ImportEndpoints:
    """The endpoints, over the import jobs of this process; ``nodes`` know those of others."""

    def __init__(self, jobs: ImportJobs, nodes: NodeClient | None = None) -> None:
        self._jobs = jobs
        self._nodes = nodes

    def operations(self) -> dict[str, Operation]:
        """What other nodes ask this one, by name."""
        return {"find_import": self._find_for_other}

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/import"""
        file = await _spool_body(receive)
        job = await self._jobs.start(tenant_of(scope), file)
        await send_json(send, _encode(_job_body(job)), 202)

    async def list_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/import: those of the last day, the newest first, without their reports"""
        query, tenant = query_params(scope), tenant_of(scope)
        limit, after = parse_limit(query), query.get("after", [None])[-1]
        bodies = [_record_body(one) for one in await self._jobs.records(tenant)]
        if parse_order(query) == "asc":
            bodies.reverse()
        rest = bodies if after is None else items_after(bodies, after)
        await send_json(send, _encode(list_body(rest[:limit], has_more=len(rest) > limit)))

    async def retrieve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/import/{id}, with the reports behind the first ``?after=…``"""
        query, tenant, name = query_params(scope), tenant_of(scope), scope["path_params"]["id"]
        page = (_parse_after(query), parse_limit(query, _PAGE))
        job = self._jobs.get(tenant, name)
        if job is not None:
            body = _job_body(job, *page)
        else:
            record = await self._jobs.record(tenant, name)
            body = await self._body_at_node(record, page) or _record_body(record)
        await send_json(send, _encode(body))

    async def _body_at_node(
        self, record: ImportRecord, page: tuple[int, int]
    ) -> dict[str, Any] | None:
        """The job as the node shows it that runs it. None: no such node can be reached."""
        if self._nodes is None or not record.is_alive:
            return None
        fields = {"tenant": record.tenant, "id": record.id, "page": page}
        for node in await self._nodes.others():
            if node.id == record.node_id:
                with contextlib.suppress(NodeUnreachableError):
                    answer = await self._nodes.call(node, "find_import", **fields)
                    body: dict[str, Any] | None = answer["job"]
                    return body
        return None

    async def _find_for_other(self, fields: dict[str, Any]) -> dict[str, Any]:
        job = self._jobs.get(fields["tenant"], fields["id"])
        return {"job": None if job is None else _job_body(job, *fields["page"])}


def _parse_after(query: Mapping[str, Sequence[str]]) -> int:
    """How many reports were read before. Raises ``InvalidRequestError``."""
    text = query.get("after", ["0"])[-1]
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise InvalidRequestError("after is how many reports were read before.", param="after")
    return int(text)


def _job_body(job: ImportJob, after: int = 0, limit: int = int(_PAGE)) -> dict[str, Any]:
    error = job.error
    return {
        **_record_body(job.record),
        "report": job.reports[after : after + limit],
        "has_more": len(job.reports) > after + limit,
        "skipped_files": job.skipped_files,
        "error": None if error is None else {"code": error.code, "message": error.message},
    }


def _record_body(record: ImportRecord) -> dict[str, Any]:
    """A job whose process cannot be asked: without reports, which nobody else has."""
    if record.status == "running" and not record.is_alive:
        record = msgspec.structs.replace(record, status="failed", error_code=INTERRUPTED_CODE)
    done, message = sum(record.counts.values()), "The import failed."
    if record.error_code == INTERRUPTED_CODE:
        message = INTERRUPTED_MESSAGE
    return {
        "id": record.id,
        "object": "import",
        "status": record.status,
        "source": record.source,
        "created_at": int(record.created_at),
        "completed_at": None if record.completed_at is None else int(record.completed_at),
        "progress": round(record.progress, 4),
        "chats": {"done": done, "total": done if record.status == "completed" else None},
        "counts": {name: record.counts.get(name, 0) for name in CHAT_STATUSES},
        "new_turns": record.new_turns,
        "report": [],
        "has_more": False,
        "skipped_files": [],
        "error": record.error_code and {"code": record.error_code, "message": message},
    }


async def _spool_body(receive: Receive) -> IO[bytes]:
    """The body as a file without a name, so that nothing of it outlives this process."""
    file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115
    try:
        await _copy_body(receive, file)
    except BaseException:
        file.close()
        raise
    return file


async def _copy_body(receive: Receive, file: IO[bytes]) -> None:
    size = 0
    chunks: list[bytes] = []
    waiting = 0
    is_more = True
    while is_more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnected
        chunk = message.get("body", b"")
        is_more = message.get("more_body", False)
        size += len(chunk)
        waiting += len(chunk)
        if size > MAX_FILE_BYTES:
            raise BodyTooLargeError(f"The file is larger than {MAX_FILE_BYTES >> 30} GiB.")
        chunks.append(chunk)
        if waiting >= _WRITE_BYTES or not is_more:
            data, chunks, waiting = b"".join(chunks), [], 0
            # The disk may be slow.
            await asyncio.to_thread(file.write, data)
    if size == 0:
        raise InvalidRequestError("The body is the file to import, and it is empty.")
