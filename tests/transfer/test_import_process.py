"""The process that reads large export files: what it reads, and what its end does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec
import pytest

from antiphon.errors import AntiphonError, InvalidRequestError
from antiphon.stores.memory.store import MemoryStore
from antiphon.transfer.chat_file import ChatFile
from antiphon.transfer.chat_importer import ChatImporter, ImportedChat
from antiphon.transfer.import_jobs import ImportJobs
from antiphon.transfer.import_process import ImportProcess
from support.chat_exports import PNG, chatgpt_chat, zipped

#: Chats of three turns; one has more than fits into a frame, and one cannot be read.
CHATS = [
    *(chatgpt_chat(f"c{number}") for number in range(40)),
    [
        {"role": role, "content": f"{role} {number} " + "long " * 2_000}
        for number in range(200)
        for role in ("user", "assistant")
    ],
    {"title": "Odd", "what": 1},
]
#: Files that are read while the test runs.
LARGE = json.dumps(CHATS).encode()


@pytest.fixture
def folder_file() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as file:
        yield file


def filled(file: IO[bytes], data: bytes) -> IO[bytes]:
    file.write(data)
    return file


async def reports_of(importer: ChatImporter) -> list[ImportedChat]:
    return [report async for report in importer.run()]


def without_ids(reports: list[ImportedChat]) -> list[ImportedChat]:
    replace = msgspec.structs.replace
    return [replace(report, chat_id=None, response_id=None) for report in reports]


@pytest.mark.parametrize(
    "data", [LARGE, zipped({"conversations.json": CHATS, "x.png": PNG, "notes.json": [1]})]
)
async def test_the_process_reads_what_a_thread_reads(folder_file: IO[bytes], data: bytes) -> None:
    file = filled(folder_file, data)
    process = ImportProcess("acme", file)
    store, other = MemoryStore(), MemoryStore()
    apart = await reports_of(ChatImporter(store.stores.chat_transfer, "acme", process))
    file.seek(0)
    here = ChatFile(file)
    inside = await reports_of(ChatImporter(other.stores.chat_transfer, "acme", here))
    assert without_ids(apart) == without_ids(inside)
    assert [report.status for report in apart] == ["imported"] * 41 + ["failed"]
    assert process.skipped_files == here.skipped_files
    assert process.progress == here.progress == 1.0
    assert len(await store.stores.chats.list_chats("acme", 100)) == 41


async def test_a_file_that_is_no_export_is_refused(folder_file: IO[bytes]) -> None:
    process = ImportProcess("", filled(folder_file, b"words"))
    with pytest.raises(InvalidRequestError) as caught:
        await reports_of(ChatImporter(MemoryStore().stores.chat_transfer, "", process))
    assert caught.value.code == "unsupported_file"


async def test_a_crash_of_the_process_is_an_error_and_what_was_imported_stays(
    folder_file: IO[bytes],
) -> None:
    process = ImportProcess("", filled(folder_file, LARGE))
    store = MemoryStore()
    reports: list[ImportedChat] = []

    async def run() -> None:
        async for report in ChatImporter(store.stores.chat_transfer, "", process).run():
            if not reports:
                # The long chat does not fit into the pipe: the process waits with it.
                assert process.pid is not None
                os.kill(process.pid, signal.SIGKILL)
            reports.append(report)

    with pytest.raises(AntiphonError) as caught:
        await run()
    assert caught.value.code == "import_crashed"
    assert "by signal 9" in caught.value.message
    assert len(await store.stores.chats.list_chats("", 100)) == len(reports) > 0


async def test_a_job_of_a_large_file_ends_with_the_reports_of_all_chats() -> None:
    file = tempfile.SpooledTemporaryFile(max_size=8 << 20)  # noqa: SIM115 - the job closes it
    file.write(LARGE)
    stores = MemoryStore().stores
    jobs = ImportJobs(stores.chat_transfer, stores.imports)
    job = await jobs.start("", file)
    async with asyncio.timeout(60):
        while job.status == "running":  # noqa: ASYNC110 - a job has no events
            await asyncio.sleep(0)
    assert (job.status, job.error, len(job.reports), job.source) == (
        "completed",
        None,
        42,
        "chatgpt",
    )
    assert file.closed


def import_workers() -> list[str]:
    """The import processes that are children of this one; it may have others."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # Each may end while it is looked at.
        with suppress(OSError):
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            command = (process / "cmdline").read_text()
            if int(parent) == os.getpid() and "import_worker" in command:
                found.append(command)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="It has no list of processes.")
async def test_a_job_that_is_stopped_leaves_no_process() -> None:
    file = tempfile.SpooledTemporaryFile(max_size=8 << 20)  # noqa: SIM115 - the job closes it
    file.write(LARGE)
    stores = MemoryStore().stores
    jobs = ImportJobs(stores.chat_transfer, stores.imports)
    job = await jobs.start("", file)
    while not job.reports:  # noqa: ASYNC110 - a job has no events
        await asyncio.sleep(0)
    await jobs.close()
    assert job.status == "failed"
    assert "stopped" in str(job.error)
    record = await stores.imports.get("", job.id)
    assert record is not None
    assert (record.status, record.error_code) == ("failed", "import_interrupted")
    assert sum(record.counts.values()) == len(job.reports)
    assert import_workers() == []


@pytest.mark.skipif(sys.platform == "win32", reason="there the next write ends it")
def test_the_process_ends_with_its_reader(folder_file: IO[bytes]) -> None:
    file = filled(folder_file, LARGE)
    file.seek(0)
    command = (sys.executable, "-P", "-m", "antiphon.transfer.import_worker")
    with subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.read(1)
        worker.stdout.close()
        assert worker.wait(timeout=30) in (0, 1)
