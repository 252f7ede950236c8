"""Import endpoints: ``/v1/import``. The body is the file, whatever program wrote it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import tenant_of
from antiphon.api.common.body import ClientDisconnected, query_params
from antiphon.api.http.asgi_responses import send_json
from antiphon.api.http.pagination import parse_limit
from antiphon.errors import BodyTooLargeError, InvalidRequestError
from antiphon.transfer.import_jobs import ImportJob, ImportJobs

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
    """The endpoints, over the import jobs of one process."""

    def __init__(self, jobs: ImportJobs) -> None:
        self._jobs = jobs

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/import"""
        file = await _spool_body(receive)
        job = self._jobs.start(tenant_of(scope), file)
        await send_json(send, _encode(_job_body(job)), 202)

    async def retrieve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/import/{id}, with the reports behind the first ``?after=…``"""
        query = query_params(scope)
        job = self._jobs.get(tenant_of(scope), scope["path_params"]["id"])
        page = (_parse_after(query), parse_limit(query, _PAGE))
        await send_json(send, _encode(_job_body(job, *page)))


def _parse_after(query: Mapping[str, Sequence[str]]) -> int:
    """How many reports were read before. Raises ``InvalidRequestError``."""
    text = query.get("after", ["0"])[-1]
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise InvalidRequestError("after is how many reports were read before.", param="after")
    return int(text)


def _job_body(job: ImportJob, after: int = 0, limit: int = int(_PAGE)) -> dict[str, Any]:
    done = len(job.reports)
    error = job.error
    return {
        "id": job.id,
        "object": "import",
        "status": job.status,
        "source": job.source,
        "created_at": int(job.created_at),
        "completed_at": None if job.completed_at is None else int(job.completed_at),
        "progress": round(job.progress, 4),
        "chats": {"done": done, "total": done if job.status == "completed" else None},
        "report": job.reports[after : after + limit],
        "has_more": done > after + limit,
        "skipped_files": job.skipped_files,
        "error": None if error is None else {"code": error.code, "message": error.message},
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
