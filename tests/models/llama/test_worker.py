"""The child process from outside: what it opens, and that it never outlives its parent."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from antiphon.core.turns import Options
from antiphon.errors import ModelUnavailableError
from antiphon.models.llama.frame_protocol import FrameSplitter, Ready, decode_from_worker
from antiphon.models.llama.model import LlamaModel
from antiphon.turn.protocols import ModelInfo
from support.embedded_model import call, generate, needs_model, open_model, weights

pytestmark = [
    needs_model,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]

#: Loads the model in an interpreter of its own, begins an answer, says the child's pid.
PARENT = """
    import asyncio, sys
    from pathlib import Path
    from antiphon.core.turns import Options
    from antiphon.models.llama.model import LlamaModel
    from antiphon.turn.protocols import ModelCall, ModelInfo

    async def main():
        model = LlamaModel(ModelInfo("m"), Path(sys.argv[1]), slots=1, context_window=2048)
        message = b'{"role": "user", "content": "Count to one thousand in words."}'
        stream = model.generate(ModelCall("m", (message,), Options(max_output_tokens=2000), True))
        await anext(stream)
        print(model.pid, flush=True)
        if sys.argv[2] == "wait":
            await asyncio.sleep(600)

    asyncio.run(main())
"""


def parent(then: str, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(weights()), then],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
    )


def child_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def ends(pidfd: int) -> bool:
    """Whether a process ends within ten seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(10_000))


@pytest.fixture(scope="module")
def running() -> Iterator[int]:
    """The pid of a child that has answered a call."""
    with open_model(slots=1, context=256) as (runner, model):
        runner.run(generate(model, call([("user", "hi")], Options(max_output_tokens=2))))
        assert model.pid is not None
        yield model.pid


def test_it_listens_on_no_port_but_in_a_folder_of_its_own(running: int) -> None:
    inodes = {
        target[8:-1]
        for entry in Path(f"/proc/{running}/fd").iterdir()
        if (target := os.readlink(entry)).startswith("socket:[")
    }
    net = Path(f"/proc/{running}/net")
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        rows = (net / protocol).read_text().splitlines()[1:]
        assert not inodes & {row.split()[9] for row in rows}
    sockets = [row.split() for row in (net / "unix").read_text().splitlines()[1:]]
    doors = {row[7] for row in sockets if row[6] in inodes and len(row) > 7}
    folder = Path(os.readlink(f"/proc/{running}/cwd"))
    assert doors == set(os.listdir(folder)) == {"door.sock"}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_terminals_ctrl_c_does_not_reach_it(running: int) -> None:
    assert os.getsid(running) == running
    ignored = next(
        int(line.split()[1], 16)
        for line in Path(f"/proc/{running}/status").read_text().splitlines()
        if line.startswith("SigIgn:")
    )
    assert ignored & 1 << (signal.SIGINT - 1)


@pytest.mark.parametrize("how", ["kill", "leave"])
def test_the_worker_ends_with_its_parent(how: str, tmp_path: Path) -> None:
    with parent("wait" if how == "kill" else how, tmp_path) as process:
        child = os.pidfd_open(child_of(process))
        try:
            if how == "kill":
                process.kill()
            _, printed = process.communicate()
            assert ends(child)
            assert printed == b""
            assert os.listdir(tmp_path) == []
        finally:
            os.close(child)


def is_loading(process: subprocess.Popen[bytes], folder: Path) -> int | None:
    """The pid of a child that has llama.cpp and not yet its model; it is stopped there."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in map(int, children):
        if "xllamacpp" in Path(f"/proc/{child}/maps").read_text():
            os.kill(child, signal.SIGSTOP)
            return None if list(folder.glob("*/door.sock")) else child
    return None


def test_a_worker_that_loads_ends_with_its_parent(tmp_path: Path) -> None:
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with parent("wait", folder) as process:
            child = None
            while child is None and not list(folder.glob("*/door.sock")):
                child = is_loading(process, folder)
            if child is None:
                process.kill()
                continue
            descriptor = os.pidfd_open(child)
            try:
                process.kill()
                # Stopped, it could see the end of no pipe.
                assert ends(descriptor)
            finally:
                os.close(descriptor)
            return
    pytest.fail("no load was slow enough to be seen")


async def test_nothing_is_left_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = LlamaModel(ModelInfo("mine"), weights(), slots=1, context_window=256)
    await model.warm()
    assert os.listdir(tmp_path) != []
    await model.close()
    assert os.listdir(tmp_path) == []
    model = LlamaModel(ModelInfo("mine"), weights(), slots=1, context_window=256)
    loading = asyncio.create_task(model.warm())
    for _ in range(3):
        await asyncio.sleep(0)
    assert os.listdir(tmp_path) != []
    await model.close()
    with pytest.raises(ModelUnavailableError):
        await loading
    assert os.listdir(tmp_path) == []


async def test_nothing_is_left_of_a_child_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = LlamaModel(ModelInfo("mine"), weights(), slots=1, context_window=256)
    stream = model.generate(call([("user", "hi")], Options(max_output_tokens=200)))
    await anext(stream)
    assert model.pid is not None
    os.kill(model.pid, signal.SIGKILL)
    with pytest.raises(ModelUnavailableError):
        async for _ in stream:
            pass
    assert os.listdir(tmp_path) == []
    await model.close()


def test_a_service_that_is_stopped_may_finish_its_answers() -> None:
    # A service manager signals every process of the service: this one's parent still drains.
    with open_model(slots=1, context=256) as (runner, model):

        async def answer() -> str:
            stream = model.generate(call([("user", "hi")], Options(max_output_tokens=50)))
            first = await anext(stream)
            assert model.pid is not None
            os.kill(model.pid, signal.SIGTERM)
            deltas = [*first, *[delta async for batch in stream for delta in batch]]
            return type(deltas[-1]).__name__

        assert runner.run(answer()) == "Finish"


def test_what_llama_cpp_prints_does_not_reach_the_frames() -> None:
    command = [sys.executable, "-c", "PLACEHOLDER"]
    program = """
        import os, sys
        from antiphon.models.llama.worker import _FrameWriter
        from antiphon.models.llama.frame_protocol import Ready
        writer = _FrameWriter()
        print("printed by Python", flush=True)
        os.write(1, b"printed by C")
        writer.write(Ready(7))
    """
    command[2] = textwrap.dedent(program)
    done = subprocess.run(command, capture_output=True, check=True)
    assert [decode_from_worker(body) for body in FrameSplitter().feed(done.stdout)] == [Ready(7)]
    assert b"printed by Python" in done.stderr
    assert b"printed by C" in done.stderr


def load_failure(path: Path, *, slots: int = 1) -> str:
    async def main() -> str:
        model = LlamaModel(ModelInfo("mine"), path, slots=slots)
        with pytest.raises(ModelUnavailableError) as caught:
            await model.warm()
        await model.close()
        return caught.value.message

    return asyncio.run(main())


def test_files_that_are_no_models_are_reported(tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    assert "is not a GGUF" in load_failure(text)
    cut = tmp_path / "cut.gguf"
    with weights().open("rb") as file:
        cut.write_bytes(file.read(3_000_000))
    assert load_failure(cut) == (
        "The model 'mine' could not be loaded: llama.cpp could not load cut.gguf (tensor "
        "'token_embd.weight' data is not within the file bounds, model is corrupted or "
        "incomplete)."
    )
    assert "Is a directory" in load_failure(tmp_path)


def test_too_little_memory_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nulimit -v 400000\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    message = load_failure(weights(), slots=4)
    assert "could not be loaded: llama.cpp could not load" in message
    assert "failed to allocate" in message


@pytest.mark.parametrize(
    ("module", "content", "words"),
    [
        ("xllamacpp.py", "raise ImportError('libgomp.so.1: no such file')", "libgomp.so.1"),
        ("xllamacpp.py", "import nothing_of_that_name", "'nothing_of_that_name'"),
        ("msgspec.py", "raise RuntimeError('half an installation')", "half an installation"),
    ],
)
def test_a_broken_installation_is_described(
    module: str, content: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / module).write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    message = load_failure(weights())
    assert words in message
    assert "is not installed" not in message


def test_a_path_that_is_not_text_is_reported(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.gguf")
    path.symlink_to(weights())
    assert "not UTF-8" in load_failure(path)


def test_a_missing_temporary_folder_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    message = load_failure(weights())
    assert message.startswith("No process could be started for the model 'mine': ")
    assert message.endswith(": No such file or directory.")


def test_modules_in_the_working_folder_stay_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert "No such file" in load_failure(Path("none.gguf"))
