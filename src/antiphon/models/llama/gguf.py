"""What a GGUF file says about itself, read from its head without loading it.

The format is described in ggml's ``docs/gguf.md``: the magic bytes, a version, two
counts, then keys with typed values, all little-endian.
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
_VOCABULARY = "tokenizer.ggml.tokens"
_KINDS = "tokenizer.ggml.token_type"
#: The token types (unknown, control) that llama.cpp looks for in a prompt's text.
_PARSED_TYPES = frozenset({2, 3})
#: Tokens that llama.cpp takes for control tokens by their look, whatever the file says.
_LOOKS_LIKE_CONTROL = re.compile(r"<[|\uff5c].*[|\uff5c]>|</?s>|<(?:start|end)_of_turn>|\[/?INST\]")


class Facts(msgspec.Struct, frozen=True):
    """``context_length`` is what the model was trained on, in tokens, where the file says so.

    ``control_tokens`` are the texts that its tokenizer turns into markup.
    """

    context_length: int | None
    control_tokens: tuple[str, ...]


def read_facts(path: Path) -> Facts:
    """Read a model file's head; a few milliseconds per 10,000 tokens of vocabulary.

    Raises ``ConfigError`` if the file is missing, unreadable or not a GGUF.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise ConfigError(f"{path} is not a GGUF model file.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Head(data).facts()
    except OSError as error:
        raise ConfigError(
            f"The model file {path} cannot be read: {error.strerror or error}."
        ) from error
    except (struct.error, ValueError, KeyError) as error:
        raise ConfigError(f"The model file {path} is damaged or cut short.") from error


class _Head:
    """Walks the head of a GGUF; whatever lies outside the file is a ``struct.error``."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4

    def facts(self) -> Facts:
        context: int | None = None
        tokens: list[bytes] = []
        types: list[int] = []
        version, _, count = self._take("<IQQ")
        if version not in (2, 3):
            raise ValueError(f"GGUF version {version}")
        for _ in range(count):
            key = self._text().decode()
            kind = self._take("<I")[0]
            if key == _VOCABULARY:
                tokens = self._array(self._text)
            elif key == _KINDS:
                types = self._array(lambda: int(self._take("<i")[0]))
            elif key.endswith(".context_length") and kind in _SCALARS:
                context = int(self._take(_SCALARS[kind])[0])
            else:
                self._skip(kind)
            # The merges that follow are long, and nobody asked for them.
            if context is not None and tokens and types:
                break
        return Facts(context, _control_tokens(tokens, types))

    def _take(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return values

    def _text(self) -> bytes:
        length = self._take("<Q")[0]
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise ValueError("a string ends beyond the file")
        return self._data[start : self._at]

    def _array(self, take: Callable[[], _T]) -> list[_T]:
        _, count = self._take("<IQ")
        return [take() for _ in range(count)]

    def _skip(self, kind: int) -> None:
        if kind == _STRING:
            self._text()
        elif kind == _ARRAY:
            inner, count = self._take("<IQ")
            if inner in _SCALARS:
                self._at += struct.calcsize(_SCALARS[inner]) * count
            else:
                for _ in range(count):
                    self._skip(inner)
        else:
            self._take(_SCALARS[kind])


def _control_tokens(tokens: list[bytes], types: list[int]) -> tuple[str, ...]:
    texts = [token.decode(errors="replace") for token in tokens]
    kinds = types or [1] * len(texts)
    return tuple(
        text
        for text, kind in zip(texts, kinds, strict=True)
        if kind in _PARSED_TYPES or _LOOKS_LIKE_CONTROL.fullmatch(text)
    )
