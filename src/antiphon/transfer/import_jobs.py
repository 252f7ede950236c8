"""Import jobs: imports that run in the background, one at a time, and report while they do.

Jobs are remembered by this process alone. What an interrupted one has written stays, and importing
its file again writes the rest.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict
from contextlib import aclosing
from typing import IO, Final, Literal

from antiphon.errors import AntiphonError, ConflictError, NotFoundError
from antiphon.transfer.chat_file import ChatFile, SkippedFile
from antiphon.transfer.chat_importer import ChatImporter, ImportedChat
from antiphon.transfer.import_process import ImportProcess
from antiphon.transfer.source_chat import Source
from antiphon.turn.transfer_protocols import ChatTransferStore

log = logging.getLogger("antiphon.transfer")

#: How many jobs are remembered, and how many of a tenant's may wait or run.
_MAX_JOBS: Final = 200
_MAX_UNFINISHED: Final = 8
#: A file of so many bytes is read in this process: starting another one would take longer.
_SMALL_BYTES: Final = 1 << 20


class ImportJob:
    """An import. ``reports`` are of the chats that are on disk; ``total`` is known at its end."""

    def __init__(self, tenant: str, file: IO[bytes]) -> None:
        self.id = "import_" + os.urandom(16).hex()
        self.tenant = tenant
        self.created_at = time.time()
        self.completed_at: float | None = None
        self.status: Literal["running", "completed", "failed"] = "running"
        self.reports: list[ImportedChat] = []
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

    async def run(self, store: ChatTransferStore) -> None:
        """Import the file, and close it."""
        try:
            self._chat_file = await asyncio.to_thread(self._open)
            importer = ChatImporter(store, self.tenant, self._chat_file)
            async with aclosing(importer.run()) as reports:
                async for report in reports:
                    self.reports.append(report)
            self.status = "completed"
        except AntiphonError as error:
            self._fail(error)
        except Exception:
            log.exception("Import %s failed", self.id)
            self._fail(AntiphonError("The server failed on this import."))
        except BaseException:
            self._fail(AntiphonError("The server was stopped during this import: send it again."))
            raise
        finally:
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

    def __init__(self, store: ChatTransferStore) -> None:
        self._store = store
        self._jobs: OrderedDict[str, ImportJob] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    def start(self, tenant: str, file: IO[bytes]) -> ImportJob:
        """Import a file in the background. Raises ``ConflictError`` where too many wait."""
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
        task = asyncio.get_running_loop().create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def get(self, tenant: str, job_id: str) -> ImportJob:
        """A job by its id. Raises ``NotFoundError``."""
        job = self._jobs.get(job_id)
        if job is None or job.tenant != tenant:
            raise NotFoundError(f"No import found with id '{job_id}'.", code="import_not_found")
        return job

    async def close(self) -> None:
        """Stop what runs."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: ImportJob) -> None:
        async with self._turn:
            await job.run(self._store)

    def _forget_old(self) -> None:
        ended = [job.id for job in self._jobs.values() if job.status != "running"]
        for job_id in ended[: max(0, len(self._jobs) - _MAX_JOBS)]:
            del self._jobs[job_id]
