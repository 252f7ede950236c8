"""Slash commands: their table, how one is read from what was typed, and their completion."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

import msgspec
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from antiphon.errors import InvalidRequestError

_WORD = re.compile(r"/([^\s/]*)(?:\s+(.*))?", re.DOTALL)


class SlashCommand(msgspec.Struct, frozen=True):
    """A command: ``arguments`` as help shows them."""

    name: str
    arguments: str
    help: str


COMMANDS: Final = (
    SlashCommand("help", "", "what there is"),
    SlashCommand("model", "[NAME]", "the models, or go on with another one"),
    SlashCommand("system", "[TEXT]", "the instructions, or others from the next question on"),
    SlashCommand("schema", "[FILE|off]", "answers as JSON by the schema of a file"),
    SlashCommand("new", "", "begin another chat"),
    SlashCommand("branch", "[N]", "go on from N turns ago; what came after stays as a branch"),
    SlashCommand("back", "[N]", "go N turns back, and edit what was asked there"),
    SlashCommand("siblings", "[N]", "the answers beside this one, or go on from the Nth"),
    SlashCommand("tree", "", "all branches of this chat, to go on from any turn"),
    SlashCommand("edit", "[TEXT]", "ask the last question in other words, as a branch"),
    SlashCommand("retry", "[MODEL…]", "answer again, by the same model or by others"),
    SlashCommand("compare", "", "the answers to the last question, one after another"),
    SlashCommand("search", "WORDS", "find words in all chats, and go on from there"),
    SlashCommand("resume", "", "choose another chat from a list"),
    SlashCommand("open", "[ID]", "read the chat, or another one, in the pager"),
    SlashCommand("copy", "[N]", "copy the answer, or its Nth code block"),
    SlashCommand("context", "", "what the model is shown next"),
    SlashCommand("cost", "", "tokens and cost of this chat"),
    SlashCommand("image", "PATH", "send an image with the next question"),
    SlashCommand("attach", "PATH", "send a text file with the next question"),
    SlashCommand("tools", "", "the tools that the model may call"),
    SlashCommand("approve", "[N]", "decide on calls that wait, in all chats"),
    SlashCommand("erase", "[chat]", "erase the last turn, or the whole chat, for good"),
    SlashCommand("keep", "", "let this chat never expire; again: as others do"),
    SlashCommand("pin", "", "pin this chat in lists; again: no more"),
    SlashCommand("export", "[FILE]", "save the chat as Markdown or JSON, by the file's ending"),
    SlashCommand("import", "FILE", "bring in chats of other programs"),
    SlashCommand("share", "", "a link to a reading copy, for a server to serve"),
    SlashCommand("web", "", "where the page shows this turn"),
    SlashCommand("queue", "[clear]", "the questions that wait, or none of them any more"),
    SlashCommand("exit", "", "leave; so do exit, quit and Ctrl-D"),
)
_NAMES: Final = tuple(command.name for command in COMMANDS)
_WITH_MODEL: Final = frozenset({"model", "retry"})
_WITH_PATH: Final = frozenset({"schema", "image", "attach", "export", "import"})


def parse_command(text: str) -> tuple[str, str] | None:
    """A command's name and its argument; None: ``text`` is a question.

    ``//`` begins a question with a slash. Raises ``InvalidRequestError`` for a word that begins
    with a slash and is no command: it is never sent, as it may have been meant as one.
    """
    if not text.startswith("/") or text.startswith("//"):
        return None
    found = _WORD.fullmatch(text)
    name = found[1] if found else text.split(maxsplit=1)[0][1:]
    if found and name in _NAMES:
        return name, (found[2] or "").strip()
    word = text.split(maxsplit=1)[0]
    if found is None:
        raise InvalidRequestError(f"{word} is no command; to ask about a path, begin with //")
    nearest = difflib.get_close_matches(name, _NAMES, 1, 0.5)
    hint = f"did you mean /{nearest[0]}?" if nearest else "/help lists them"
    raise InvalidRequestError(f"/{name} is no command: {hint} (// sends a slash)")


def question_of(text: str) -> str:
    """What a text asks: ``//`` stands for a slash."""
    return text[1:] if text.startswith("//") else text


class SlashCompleter(Completer):
    """Completes commands, and names of models and files behind those that take them."""

    def __init__(self) -> None:
        self.model_names: tuple[str, ...] = ()
        self._paths = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or text.startswith("//") or "\n" in text:
            return
        word = text[1:]
        if " " not in word:
            for command in COMMANDS:
                if command.name.startswith(word):
                    shown = f"/{command.name} {command.arguments}".rstrip()
                    yield Completion(
                        command.name, -len(word), display=shown, display_meta=command.help
                    )
            return
        name, _, argument = word.partition(" ")
        if name in _WITH_PATH:
            yield from self._paths.get_completions(Document(argument), complete_event)
        elif name in _WITH_MODEL:
            last = word.rpartition(" ")[2]
            for name in self.model_names:
                if name.startswith(last):
                    yield Completion(name, -len(last))
