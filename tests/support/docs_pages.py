"""The documentation as code: its blocks, its links, and a reader who runs all of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from typer.testing import CliRunner

from antiphon.cli.main import build_app
from antiphon.settings import load_settings
from antiphon.stores.postgres.connection import SESSION_SETTINGS
from support.command_line import PROGRAM, environment
from support.docs_upstream import Script, read_script, upstream

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parents[1] / "docs"
PAGES = sorted((ROOT / "docs").glob("*.md"))
README = ROOT / "README.md"

#: What a block may say it is. Those of ``PLAIN`` are for reading only.
RUN = {"python"}
COMMANDS = {"sh", "console"}
VALIDATED = {"toml", "json"}
PLAIN = {"text", "output"}
#: Programs that a command line may use besides ours.
_OTHER_PROGRAMS = {"cat", "echo"}
#: Where the pages say that a server is, and its gRPC.
SERVER = "http://127.0.0.1:8080"
RPC = "localhost:8081"
#: The client opens its WebSocket in a way that newer websockets have a word to say about.
_IGNORED_WARNING = "ignore:connect() must be used as a context manager:DeprecationWarning"
#: Seconds after which whatever has not happened never will.
_TIMEOUT = 180.0
#: What has no types to check.
_UNTYPED = re.compile(r"^(import xai_sdk|from xai_sdk\S* import .*)$")
_FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ ]*$", re.M | re.S
)


class Block(msgspec.Struct, frozen=True):
    """A fenced block. ``line`` is its first line's number in the page.

    ``output`` is the block right after it that says what it prints, if there is one.
    """

    language: str
    text: str
    line: int
    output: str | None = None


class PageServer(msgspec.Struct, frozen=True):
    """A page's server: its URL, and host and port of its gRPC."""

    url: str
    rpc: str


class PageRun(msgspec.Struct, frozen=True):
    """What came of running a page: what is wrong with it, and what each step printed."""

    errors: list[str]
    outputs: list[tuple[Block, str]]


def blocks_of(page: str) -> list[Block]:
    """A page's blocks in order."""
    found: list[Block] = []
    end = 0
    for match in _FENCE.finditer(page):
        language, text = match["language"].strip(), match["text"]
        line = page.count("\n", 0, match.start()) + 2
        if language in PLAIN and found and not page[end : match.start()].strip():
            found[-1] = msgspec.structs.replace(found[-1], output=text)
        found.append(Block(language, text, line))
        end = match.end()
    return found


def block_errors(page: str) -> list[str]:
    """What is wrong with a page's blocks that is seen without running them."""
    faults: list[str] = []
    blocks = blocks_of(page)
    if re.search(r"^\s*(```|~~~)", _FENCE.sub("", page), re.M):
        faults.append("a fence that is indented, made of tildes or never closed")
    before: Block | None = None
    for block in blocks:
        try:
            _check(block, before)
        except Exception as error:  # noqa: BLE001 - whatever a parser raises
            faults.append(f"line {block.line}: {type(error).__name__}: {error}")
        before = block
    return faults


def _check(block: Block, before: Block | None) -> None:
    match block.language:
        case "toml":
            _check_settings(block.text)
        case "json":
            _check_programs(json.loads(block.text))
        case "output":
            if before is None or before.output is None or before.language in PLAIN | VALIDATED:
                raise ValueError("an output block stands right behind what prints it")
        case "sh" | "console":
            commands_of(block)
        case "sql":
            _check_statements(block.text)
        case language if language not in RUN | PLAIN:
            raise ValueError(f"a block of {language or 'no'} language: nothing would check it")


def _check_statements(text: str) -> None:
    """Compare what a page has a database set with what each connection sets for itself."""
    lines = {line.rstrip(";").replace("ALTER ROLE antiphon ", "") for line in text.splitlines()}
    if lines != set(SESSION_SETTINGS):
        raise ValueError(f"not what a connection sets: {lines ^ set(SESSION_SETTINGS)}")


def _check_settings(text: str) -> None:
    """Load settings as they are copied from a page, with the files and keys that they name."""
    with _folder() as folder:
        config = tomllib.loads(text)
        models, mcp_servers = config.get("models", {}).values(), config.get("mcp", {}).values()
        names = [one["api_key_env"] for one in models if "api_key_env" in one]
        for one in models:
            names += one.get("headers_env", {}).values()
        for one in mcp_servers:
            names += [*one.get("env", ()), *one.get("headers_env", {}).values()]
        keys = dict.fromkeys(names, "key-0123456789")
        files = [config[name] for name in ("tls_cert", "tls_key") if name in config]
        for name in [*files, *(one["path"] for one in models if "path" in one)]:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (folder / "config.toml").write_text(text, "utf-8")
        load_settings({"config": "config.toml"}, keys, folder)


def _check_programs(value: Any) -> None:
    """Parse the command lines of ours that other programs are told to start."""
    if not isinstance(value, dict):
        return
    if "command" in value and Path(value["command"]).name == "antiphon":
        _parse(value["args"])
    for one in value.values():
        _check_programs(one)


def commands_of(block: Block) -> list[str]:
    """The lines of a block that end by themselves, to run; the others are checked here.

    Raises ``ValueError`` for a line that nothing would check.
    """
    lines = block.text.splitlines()
    if block.language == "console":
        # The rest is what the commands printed, or what a person typed.
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    runnable = []
    for line in lines:
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if _terminates(words):
            runnable.append(line.replace(".venv/bin/antiphon", "antiphon"))
    return runnable


def _terminates(words: Sequence[str]) -> bool:
    """Whether a command ends by itself; checks it where it does not."""
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
        for target in words[1:]:
            if "=" not in target and target not in targets:
                raise ValueError(f"there is no 'make {target}'")
        return False
    if words[0] == "pip":
        _check_requirements(words[1:])
        return False
    ends = True
    for program in _programs(words):
        name = Path(program[0]).name
        if name == "antiphon":
            ends = _parse(program[1:]) and ends
        elif name not in _OTHER_PROGRAMS:
            raise ValueError(f"nothing would check {name!r}")
    return ends


def _check_requirements(words: Sequence[str]) -> None:
    """Check that what a page installs is this package, or its folder, with extras that it has."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    command, *requirements = words
    for requirement in requirements:
        name, _, chosen = requirement.removesuffix("]").partition("[")
        unknown = set(chosen.split(",")) - {"", *extras}
        if command != "install" or name not in {"antiphon", "."} or unknown:
            raise ValueError(f"nothing would check 'pip {shlex.join(words)}'")


def _programs(words: Sequence[str]) -> Iterator[list[str]]:
    program: list[str] = []
    # Behind an arrow stands a file that the output goes to.
    end = words.index(">") if ">" in words else len(words)
    for word in [*words[:end], "|"]:
        if word == "|":
            yield program
            program = []
        else:
            program.append(word)


def _parse(arguments: Sequence[str]) -> bool:
    """Parse our own command line without running it. False: it would not end, or needs more."""
    parsed = CliRunner().invoke(build_app(), [*arguments, "--help"])
    if parsed.exit_code:
        raise ValueError(f"antiphon {shlex.join(arguments)}: {parsed.output}")
    name = " ".join(arguments[:2])
    talks = name.startswith("chat") and not {"-p", "--prompt"} & set(arguments)
    stays = name.startswith(("serve", "mcp")) or name == "model pull"
    # Ids in a page stand for one's own.
    return not (talks or stays or "…" in "".join(arguments))


def run_page(page: Path, *, real_model: bool = False) -> PageRun:
    """Run a page from its first block to its last, in a home of its own."""
    blocks = blocks_of(page.read_text("utf-8"))
    script = read_script(DATA / f"{page.stem}.toml")
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        model = None if real_model else stack.enter_context(upstream(script))
        # The MCP tables of a page are its server's configuration, too.
        mcp_servers = [
            one.text for one in blocks if one.language == "toml" and one.text.startswith("[mcp.")
        ]
        environ = _environment(folder, model.base_url if model else None, mcp_servers)
        server = None
        programs = [block.text for block in blocks if block.language in RUN]
        if any(SERVER in text or RPC in text for text in programs):
            server = stack.enter_context(_running_server(environ, folder))
        steps = list(_steps(blocks, page.name, server))
        ran = _run(steps, folder, environ, script)
        ran.errors.extend(model.errors if model else [])
        # What would never come may be cancelled before it is requested.
        remaining = [one for one in model.remaining if not one.hang] if model else []
        if remaining and not ran.errors:
            ran.errors.append(f"{len(remaining)} replies were not requested: {remaining}")
    return ran


def _steps(
    blocks: Sequence[Block], page: str, server: PageServer | None
) -> Iterator[tuple[Block, dict[str, Any]]]:
    for block in blocks:
        if block.language in RUN:
            text = block.text
            if server is not None:
                text = text.replace(SERVER, server.url).replace(RPC, server.rpc)
            yield block, {"kind": "python", "line": block.line, "page": page, "text": text}
        elif block.language in COMMANDS and (commands := commands_of(block)):
            yield block, {"kind": "commands", "commands": commands}


def _run(
    steps: Sequence[tuple[Block, dict[str, Any]]],
    folder: Path,
    environ: Mapping[str, str],
    script: Script,
) -> PageRun:
    steps_file, results = folder / "steps.json", folder / "results.json"
    steps_file.write_text(json.dumps([step for _, step in steps]), "utf-8")
    work = folder / "work"
    shutil.copytree(DATA / "files", work)
    program = [
        sys.executable,
        "-W",
        "error",
        "-W",
        _IGNORED_WARNING,
        str(Path(__file__).with_name("docs_page_runner.py")),
    ]
    stderr_file = folder / "stderr"
    # Not by pipes: what a page leaves running would hold them open, and be waited for.
    with stderr_file.open("wb") as stderr:
        ran = subprocess.run(
            [*program, steps_file, results],
            env=dict(environ),
            cwd=work,
            input=script.stdin,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    errors = stderr_file.read_text("utf-8")
    faults = [f"ended with {ran.returncode}\n{errors}"] if ran.returncode else []
    faults += [f"not on standard error: {one}" for one in script.stderr if one not in errors]
    if "Exception ignored" in errors or (errors and not script.stderr):
        faults.append(f"on standard error: {errors}")
    printed = json.loads(results.read_text("utf-8")) if results.is_file() else []
    return PageRun(faults, [(block, one) for (block, _), one in zip(steps, printed, strict=False)])


def output_differs(block: Block, printed: str) -> bool:
    """Whether a block printed something else than its page says; ``…`` stands for anything."""
    if block.output is None or block.language == "console":
        return False
    pattern = ".*".join(map(re.escape, block.output.strip().split("…")))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is None


def _environment(folder: Path, base_url: str | None, mcp_tables: Sequence[str]) -> dict[str, str]:
    """A person's who has set up one model with a price; with None, who has set up nothing.

    ``mcp_servers`` are the tables of MCP servers, whose programs lie beside the configuration.
    """
    environ = environment(folder)
    environ["PATH"] = f"{Path(PROGRAM).parent}{os.pathsep}{environ['PATH']}"
    environ["PYTHONUTF8"] = "1"
    if base_url is not None:
        price = "price = { input = 3.0, cached = 0.75, output = 15.0 }"
        config = folder / "config" / "antiphon" / "config.toml"
        config.parent.mkdir(parents=True)
        tables = [f'[models."{name}"]\nbase_url = "{base_url}"\n{price}\n' for name in MODELS]
        config.write_text(f'model = "{MODELS[0]}"\n' + "\n".join([*tables, *mcp_tables]), "utf-8")
        if mcp_tables:
            shutil.copytree(DATA / "files", config.parent, dirs_exist_ok=True)
    return environ


#: The names that the pages call a model by; all of them are the page's upstream.
MODELS = ("grok-4", "smollm2")


@contextmanager
def _running_server(environ: Mapping[str, str], folder: Path) -> Iterator[PageServer]:
    """A server for the page's clients, over the same store."""
    log_file = folder / "server.log"
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [PROGRAM, "serve", "--port", "0"],
            env=dict(environ),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        assert process.stdout is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            assert found is not None, log_file.read_text()
            yield PageServer(found[0], _grpc_address(log_file))
        finally:
            process.terminate()
            try:
                process.wait(_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _grpc_address(log: Path) -> str:
    """Where a server that has just said its URL serves gRPC."""
    late = time.monotonic() + _TIMEOUT
    while (found := re.search(r"gRPC, .*:(\d+)", log.read_text())) is None:
        assert time.monotonic() < late, log.read_text()
        time.sleep(0.01)
    return f"localhost:{found[1]}"


@contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


def to_module(page: Path) -> str:
    """A page's Python as one module, each line where the page has it."""
    lines: list[str] = []
    for block in blocks_of(page.read_text("utf-8")):
        if block.language in RUN:
            lines += [""] * (block.line - 1 - len(lines))
            lines += [
                _UNTYPED.sub(r"\g<0>  # type: ignore[import-untyped]", line)
                for line in block.text.splitlines()
            ]
    return "\n".join(lines) + "\n"


def anchors_of(page: str) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    prose = _FENCE.sub("", page)
    headings = re.findall(r"^#+ +(.*?) *$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def broken_links(page: Path) -> list[str]:
    """The links of a page to files and headings that are not there."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors_of(path.read_text("utf-8"))):
            broken.append(target)
    return broken


def code_of(page: str) -> str:
    """What stands in a page as code: its blocks, and its spans."""
    blocks = [block.text for block in blocks_of(page)]
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", _FENCE.sub("", page))
    return "\n".join([*blocks, *spans])
