"""Import jobs: imports that run in the background, one at a time, and report while they do.

The reports of a job are remembered by this process alone; how far it has got is in the store, too,
for all others. What an interrupted one has written stays, and importing its file again writes the
rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import IO, Final, Literal

from antiphon.errors import AntiphonError, ConflictError, NotFoundError
from antiphon.transfer.chat_file import ChatFile, SkippedFile
from antiphon.transfer.chat_importer import ChatImporter, ImportedChat
from antiphon.transfer.import_process import ImportProcess
from antiphon.transfer.source_chat import Source
from antiphon.turn.transfer_protocols import ChatTransferStore, ImportRecord, ImportRecordStore

log = logging.getLogger("antiphon.transfer")

#: How many jobs are remembered, and how many of a tenant's may wait or run.
_MAX_JOBS: Final = 200
_MAX_UNFINISHED: Final = 8
#: A file of so many bytes is read in this process: starting another one would take longer.
_SMALL_BYTES: Final = 1 << 20
#: Seconds between two records of a job that runs.
_RECORD_INTERVAL: Final = 1.0

#: What became of a job whose process has ended.
INTERRUPTED_CODE: Final = "import_interrupted"
INTERRUPTED_MESSAGE: Final = (
    "The server process was stopped during this import. What was imported stays: send the file"
    " again."
)


class ImportJob:
    """An import. ``reports`` are of the chats that are on disk; ``total`` is known at its end."""

    def __init__(self, tenant: str, file: IO[bytes]) -> None:
        self.id = "import_" + os.urandom(16).hex()
        self.tenant = tenant
        self.created_at = time.time()
        self.completed_at: float | None = None
        self.status: Literal["running", "completed", "failed"] = "running"
        self.reports: list[ImportedChat] = []
        self._counts: Counter[str] = Counter()
        self._new_turns = 0
        self.error: AntiphonError | None = None
        self._file = file
        self._chat_file: ChatFile | ImportProcess | None = None

    @property
    def source(self) -> Source | None:
        """The program that wrote the file, as soon as a chat of it was read."""
        return next((report.source for report in self.reports if report.source), None)

    @property
    def progress(self) -> float:
        """How much of the file was read, from 0 to 1."""
        if self.status == "completed":
            return 1.0
        return self._chat_file.progress if self._chat_file is not None else 0.0

    @property
    def skipped_files(self) -> list[SkippedFile]:
        return self._chat_file.skipped_files if self._chat_file is not None else []

    @property
    def record(self) -> ImportRecord:
        """What others are to know of it."""
        return ImportRecord(
            self.id,
            self.tenant,
            self.created_at,
            self.status,
            self.source,
            self.progress,
            dict(self._counts),
            self._new_turns,
            self.completed_at,
            None if self.error is None else self.error.code,
        )

    async def run(
        self, store: ChatTransferStore, on_progress: Callable[[ImportJob], Awaitable[None]]
    ) -> None:
        """Import the file, and close it."""
        try:
            self._chat_file = await asyncio.to_thread(self._open)
            importer = ChatImporter(store, self.tenant, self._chat_file)
            async with aclosing(importer.run()) as reports:
                async for report in reports:
                    self.reports.append(report)
                    self._counts[report.status] += 1
                    self._new_turns += report.new_turns
                    await on_progress(self)
            self.status = "completed"
        except AntiphonError as error:
            self._fail(error)
        except Exception:
            log.exception("Import %s failed", self.id)
            self._fail(AntiphonError("The server failed on this import."))
        except BaseException:
            self.interrupt()
            raise
        finally:
            self.completed_at = time.time()
            self._file.close()

    def interrupt(self) -> None:
        """The process stops."""
        if self.status == "running":
            self._fail(AntiphonError(INTERRUPTED_MESSAGE, code=INTERRUPTED_CODE))
            self.completed_at = time.time()
            self._file.close()

    def _open(self) -> ChatFile | ImportProcess:
        """The file, for being read here, or in a process of its own where that takes long."""
        if self._file.seek(0, os.SEEK_END) <= _SMALL_BYTES:
            return ChatFile(self._file)
        return ImportProcess(self.tenant, self._file)

    def _fail(self, error: AntiphonError) -> None:
        self.status, self.error = "failed", error


class ImportJobs:
    """The import jobs of this process. Each job runs once those before it have ended."""

    def __init__(self, store: ChatTransferStore, records: ImportRecordStore) -> None:
        self._store = store
        self._records = records
        self._recorded_at = 0.0
        self._jobs: OrderedDict[str, ImportJob] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Held by the job that runs.
        self._running_lock = asyncio.Lock()

    async def start(self, tenant: str, file: IO[bytes]) -> ImportJob:
        """Import a file in the background, once others can find the job.

        Raises ``ConflictError`` where too many wait, and ``StoreError``.
        """
        unfinished = [
            job for job in self._jobs.values() if (job.tenant, job.status) == (tenant, "running")
        ]
        if len(unfinished) >= _MAX_UNFINISHED:
            file.close()
            raise ConflictError(
                f"{len(unfinished)} imports wait or run already: wait for one to end.",
                code="too_many_imports",
            )
        job = ImportJob(tenant, file)
        self._jobs[job.id] = job
        self._forget_old()
        try:
            await self._records.put(job.record)
        except BaseException:
            del self._jobs[job.id]
            file.close()
            raise
        task = asyncio.get_running_loop().create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def get(self, tenant: str, job_id: str) -> ImportJob | None:
        """A job of this process."""
        job = self._jobs.get(job_id)
        return job if job is not None and job.tenant == tenant else None

    async def record(self, tenant: str, job_id: str) -> ImportRecord:
        """What is stored of a job, whichever process runs it. Raises ``NotFoundError``."""
        record = await self._records.get(tenant, job_id)
        if record is None:
            raise NotFoundError(f"No import found with id '{job_id}'.", code="import_not_found")
        return record

    async def records(self, tenant: str) -> list[ImportRecord]:
        """A tenant's imports of the last day, the newest first; those of this process as of now."""
        stored = await self._records.list_records(tenant)
        own = {job.id: job for job in self._jobs.values() if job.tenant == tenant}
        return [own[one.id].record if one.id in own else one for one in stored]

    async def close(self) -> None:
        """Stop what runs."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: ImportJob) -> None:
        try:
            async with self._running_lock:
                await job.run(self._store, self._record_progress)
        finally:
            job.interrupt()
            # A store that refuses is said to by the job itself.
            with contextlib.suppress(AntiphonError):
                await self._records.put(job.record)

    async def _record_progress(self, job: ImportJob) -> None:
        """Store how far a job has got, once in a while."""
        if time.monotonic() - self._recorded_at >= _RECORD_INTERVAL:
            self._recorded_at = time.monotonic()
            with contextlib.suppress(AntiphonError):
                await self._records.put(job.record)

    def _forget_old(self) -> None:
        ended = [job.id for job in self._jobs.values() if job.status != "running"]
        for job_id in ended[: max(0, len(self._jobs) - _MAX_JOBS)]:
            del self._jobs[job_id]
