"""Tokenizer client: llama.cpp's HTTP server on a Unix socket, the only API of its tokenizer."""

from __future__ import annotations

import http.client
import socket
import sys

import msgspec

from antiphon.errors import ModelError
from antiphon.turn.protocols import Token

_TIMEOUT_SECONDS = 60.0


class _Prompt(msgspec.Struct):
    prompt: str


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _TokenizeBody(msgspec.Struct):
    content: str
    add_special: bool = True
    parse_special: bool = True
    with_pieces: bool = False


class _Piece(msgspec.Struct):
    id: int
    #: Text, or bytes where it is not a whole character.
    piece: str | list[int]


class _Pieces(msgspec.Struct):
    tokens: list[_Piece]


class TokenizerClient:
    """The socket lies in the working folder. Not on Windows."""

    path = "door.sock"

    def count_tokens(self, body: bytes) -> int:
        """The tokens of a body for ``/apply-template``. Raises ``ModelError``."""
        prompt = msgspec.json.decode(self._post("/apply-template", body), type=_Prompt).prompt
        content = msgspec.json.encode(_TokenizeBody(prompt))
        return len(msgspec.json.decode(self._post("/tokenize", content), type=_Tokens).tokens)

    def tokenize(self, text: str) -> tuple[Token, ...]:
        """A text's tokens, with nothing around it; control tokens in it are text. Raises
        ``ModelError``.
        """
        content = _TokenizeBody(text, add_special=False, parse_special=False, with_pieces=True)
        answer = self._post("/tokenize", msgspec.json.encode(content))
        return tuple(
            Token(one.id, one.piece.encode() if isinstance(one.piece, str) else bytes(one.piece))
            for one in msgspec.json.decode(answer, type=_Pieces).tokens
        )

    def _post(self, path: str, body: bytes) -> bytes:
        if sys.platform == "win32":
            raise ModelError("There is no Unix socket on Windows.")
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(_TIMEOUT_SECONDS)
            connection.sock.connect(self.path)
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ModelError(f"llama.cpp's tokenizer could not be asked: {error}.") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise ModelError(f"llama.cpp could not count: {data[:300].decode(errors='replace')}")
        return data
