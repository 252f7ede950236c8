"""GGUF metadata: reads a model file's header without loading it.

The format is described in ggml's ``docs/gguf.md``: the magic bytes, a version, two counts,
then keys with typed values, all little-endian. Written here because the ``gguf`` package
brings numpy along, where a few keys are needed.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from antiphon.errors import ConfigError

MAGIC = b"GGUF"

_T = TypeVar("_T")

_STRING = 8
_ARRAY = 9
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_TOKENS_KEY = "tokenizer.ggml.tokens"
_TOKEN_TYPES_KEY = "tokenizer.ggml.token_type"  # noqa: S105
_CHAT_TEMPLATE_KEY = "tokenizer.chat_template"
#: What converters know of a model's kind: its name, and for what it was trained further.
_NAME_KEYS = ("general.name", "general.finetune")
#: The token types (unknown, control) that llama.cpp looks for in a prompt's text.
_CONTROL_TYPES = frozenset({2, 3})
#: Tokens that llama.cpp treats as control tokens by their text, whatever their type.
_CONTROL_TOKEN_PATTERN = re.compile(
    r"<[|\uff5c].*[|\uff5c]>|</?s>|<(?:start|end)_of_turn>|\[/?INST\]"
)


class GgufMetadata(msgspec.Struct, frozen=True):
    """``context_length`` is what the model was trained on, in tokens, where the file says so.

    ``control_tokens`` are the texts that its tokenizer reads as control tokens. ``chat_template``
    is a Jinja template, None: the model was not trained to chat. ``names`` are the model's name and
    what it was trained further for, where the file says so.
    """

    context_length: int | None
    control_tokens: tuple[str, ...]
    chat_template: str | None = None
    names: tuple[str, ...] = ()


def read_metadata(path: Path) -> GgufMetadata:
    """Read a model file's header; some ten milliseconds per 10,000 tokens of vocabulary.

    Raises ``ConfigError`` if the file is missing, unreadable or not a GGUF.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise ConfigError(f"{path} is not a GGUF model file.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _HeaderReader(data).read()
    except OSError as error:
        raise ConfigError(
            f"The model file {path} cannot be read: {error.strerror or error}."
        ) from error
    except (struct.error, ValueError, KeyError, OverflowError, RecursionError) as error:
        raise ConfigError(f"The model file {path} is damaged or cut short.") from error


class _HeaderReader:
    """Reads a GGUF header; an offset outside the file is a ``struct.error``."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._offset = 4

    def read(self) -> GgufMetadata:
        context: int | None = None
        template: str | None = None
        names: list[str] = []
        tokens: list[bytes] = []
        types: list[int] = []
        version, _, count = self._unpack("<IQQ")
        if version not in (2, 3):
            raise ValueError(f"GGUF version {version}")
        for _ in range(count):
            key = self._read_string().decode()
            kind = self._unpack("<I")[0]
            if key == _TOKENS_KEY:
                tokens = self._read_array(self._read_string)
            elif key == _TOKEN_TYPES_KEY:
                types = self._read_array(lambda: int(self._unpack("<i")[0]))
            elif key.endswith(".context_length") and kind in _SCALARS:
                context = int(self._unpack(_SCALARS[kind])[0])
            elif key == _CHAT_TEMPLATE_KEY and kind == _STRING:
                template = self._read_string().decode(errors="replace")
            elif key in _NAME_KEYS and kind == _STRING:
                names.append(self._read_string().decode(errors="replace"))
            else:
                self._skip_value(kind)
        template = template if template and template.strip() else None
        return GgufMetadata(context, _control_tokens(tokens, types), template, tuple(names))

    def _unpack(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from(form, self._data, self._offset)
        self._offset += struct.calcsize(form)
        return values

    def _read_string(self) -> bytes:
        length = self._unpack("<Q")[0]
        start, self._offset = self._offset, self._offset + length
        if self._offset > len(self._data):
            raise ValueError("a string ends beyond the file")
        return self._data[start : self._offset]

    def _read_array(self, read_one: Callable[[], _T]) -> list[_T]:
        _, count = self._unpack("<IQ")
        return [read_one() for _ in range(count)]

    def _skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self._read_string()
        elif kind == _ARRAY:
            inner, count = self._unpack("<IQ")
            if inner in _SCALARS:
                self._offset += struct.calcsize(_SCALARS[inner]) * count
            else:
                for _ in range(count):
                    self._skip_value(inner)
        else:
            self._unpack(_SCALARS[kind])


def _control_tokens(tokens: list[bytes], types: list[int]) -> tuple[str, ...]:
    texts = [token.decode(errors="replace") for token in tokens]
    kinds = types or [1] * len(texts)
    return tuple(
        text
        for text, kind in zip(texts, kinds, strict=True)
        if kind in _CONTROL_TYPES or _CONTROL_TOKEN_PATTERN.fullmatch(text)
    )
