"""Import process: reads an export file in a process of its own, as that process's parent.

Parsing a large file keeps an interpreter busy, and with it whatever else runs there. What was read
comes through a pipe, a few turns at once; while the store is busy, the other process waits.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncGenerator
from typing import IO, Final

from antiphon.errors import AntiphonError, InvalidRequestError
from antiphon.transfer.chat_file import SkippedFile
from antiphon.transfer.chat_preparation import ReadyChat
from antiphon.transfer.import_frames import (
    LENGTH,
    Chat,
    Crash,
    EndOfFile,
    Frame,
    Turns,
    UnsupportedFile,
    decode_frame,
    whole_chat,
)
from antiphon.turn.transfer_protocols import TurnImport

log = logging.getLogger("antiphon.transfer")

#: A batch ends with the chat that makes it so large.
_CHATS: Final = 16
_TURNS: Final = 64


class ImportProcess:
    """The process that reads one file, once. ``file`` is on the disk, and is not sought here."""

    def __init__(self, tenant: str, file: IO[bytes]) -> None:
        self._tenant = tenant
        self._file = file
        #: Entries without chats; known once all was read.
        self.skipped_files: list[SkippedFile] = []
        #: How much of the file was read, from 0 to 1.
        self.progress = 0.0
        self.pid: int | None = None
        self._is_over = False

    async def batches(self) -> AsyncGenerator[list[ReadyChat], None]:
        """The chats of the file, a few at a time.

        Raises ``InvalidRequestError`` where the file is no export file, and ``AntiphonError``
        where the process ended before it had read all.
        """
        process = await asyncio.to_thread(self._start)
        self.pid = process.pid
        try:
            while batch := await asyncio.to_thread(self._read_batch, process):
                yield batch
        finally:
            # A thread that still reads finds the end of the pipe.
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self._file.seek(0)
        self._file.flush()
        # A session of its own keeps a terminal's Ctrl-C from the worker, and -P keeps the modules
        # in the working folder out of it.
        command = (sys.executable, "-P", "-m", "antiphon.transfer.import_worker")
        try:
            return subprocess.Popen(  # noqa: S603 - a fixed command
                command,
                stdin=self._file.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise AntiphonError(
                f"No process could be started that reads the file: {error.strerror}."
            ) from error

    def _read_batch(self, process: subprocess.Popen[bytes]) -> list[ReadyChat]:
        """The next chats, none at the end; runs in a thread."""
        batch: list[ReadyChat] = []
        turns: list[TurnImport] = []
        size = 0
        while not self._is_over and len(batch) < _CHATS and size < _TURNS:
            match _read_frame(process):
                case Turns(turns=more):
                    turns += more
                case Chat(chat=chat, progress=progress):
                    batch.append(whole_chat(self._tenant, chat, turns))
                    size += len(turns)
                    turns = []
                    self.progress = progress
                case EndOfFile(skipped_files=skipped_files):
                    self.skipped_files = skipped_files
                    self.progress = 1.0
                    self._is_over = True
                case UnsupportedFile(message=message, code=code):
                    raise InvalidRequestError(message, code=code)
                case Crash(traceback=traceback):
                    log.error("Reading an import failed:\n%s", traceback)
                    raise AntiphonError("The server failed on this import.")
        return batch


def _read_frame(process: subprocess.Popen[bytes]) -> Frame:
    """The next frame. Raises ``AntiphonError`` where the process has ended without one."""
    assert process.stdout is not None, "it is a pipe"
    length = process.stdout.read(LENGTH.size)
    if len(length) == LENGTH.size:
        (size,) = LENGTH.unpack(length)
        body = process.stdout.read(size)
        if len(body) == size:
            return decode_frame(body)
    status = process.wait()
    how = f"with status {status}" if status >= 0 else f"by signal {-status}"
    hint = "; the machine may be out of memory" if status == -9 else ""
    raise AntiphonError(
        f"The process that reads the file ended {how}{hint}. What was imported stays:"
        " send the file again.",
        code="import_crashed",
    )
