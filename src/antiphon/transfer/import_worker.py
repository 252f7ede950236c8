"""Import worker: ``python -m antiphon.transfer.import_worker`` reads an export file.

The file is its standard input, and the frames of ``import_frames`` its standard output. It waits
while the pipe is full, and ends when nobody reads it any more: so it does not outlive its parent.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import traceback
from typing import BinaryIO

from antiphon.errors import InvalidRequestError
from antiphon.transfer.chat_file import ChatFile
from antiphon.transfer.chat_preparation import ENCODING_ERRORS, RefusedChat, prepare_chat
from antiphon.transfer.import_frames import (
    Crash,
    EndOfFile,
    Frame,
    UnsupportedFile,
    chat_frames,
    encode_frame,
)

#: Turns of clients go first where the processor is wanted by both.
_NICENESS = 10
#: Whose chats they are is not for this process, nor for lists of processes, to know.
_NO_TENANT = ""


def main() -> None:
    """Read standard input to its end."""
    # Ctrl-C in a terminal is handled by the parent, which decides what stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        os.nice(_NICENESS)
    threading.Thread(target=_end_with_reader, daemon=True).start()
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    # Nothing that is printed comes between frames.
    os.dup2(2, 1)
    last: Frame
    try:
        file = ChatFile(sys.stdin.buffer)
        _send_chats(file, out)
        last = EndOfFile(file.skipped_files)
    except InvalidRequestError as error:
        last = UnsupportedFile(error.message, error.code)
    except BrokenPipeError:
        return
    except Exception as error:  # noqa: BLE001 - the parent reports it
        places = "".join(traceback.format_tb(error.__traceback__))
        last = Crash(f"{places}{type(error).__name__}")
    _write(out, encode_frame(last))


def _send_chats(file: ChatFile, out: BinaryIO) -> None:
    for chat in file.chats():
        ready = prepare_chat(_NO_TENANT, chat)
        try:
            frames = list(chat_frames(ready, file.progress))
        except ENCODING_ERRORS as error:
            title = ready.title if isinstance(ready, RefusedChat) else ready.request.title
            reason = f"it cannot be stored: {error}"
            frames = list(chat_frames(RefusedChat(title, ready.source, (reason,)), file.progress))
        for frame in frames:
            _write(out, frame)


def _write(out: BinaryIO, data: bytes) -> None:
    """All of it: a pipe takes what it has room for."""
    view = memoryview(data)
    while view:
        view = view[out.write(view) :]


def _end_with_reader() -> None:
    """End this process once its output has no reader, also in the middle of a large chat."""
    if sys.platform == "win32":
        # There the next write fails.
        return
    output = os.dup(1)
    poll = select.poll()
    # Errors are always reported: that of a pipe without a reader is the only event.
    poll.register(output, 0)
    poll.poll()
    os._exit(1)


if __name__ == "__main__":
    main()
