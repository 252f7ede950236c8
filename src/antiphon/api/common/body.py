"""Request bodies: reading with a size limit, JSON decoding, and validation errors by field."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qs

import msgspec
from starlette.types import Receive, Scope

from antiphon.api.common.loose_values import FieldKinds
from antiphon.core.extra_fields import select_extra_fields
from antiphon.core.provider_fields import is_nested_deeper
from antiphon.errors import BodyTooLargeError, InvalidRequestError

T = TypeVar("T")
Body = TypeVar("Body", bound=msgspec.Struct)

#: Bytes. Room for a 20 MiB image in base64 and the words around it.
MAX_BODY = 32 * 1024 * 1024
#: Past this a client is not worth listening to until it has finished.
_MAX_DRAIN = 8 * MAX_BODY

#: Levels of brackets in what a body may hold freely, such as a tool's schema. Decoding
#: gives up at about a thousand, but what it lets pass has to be encoded again, deeper inside.
MAX_DEPTH = 100

#: What decoding raises for a body that cannot be decoded: see ``invalid_value_error``.
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_VALIDATION_MESSAGE = re.compile(
    r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*)`)?$", re.DOTALL
)


class ClientDisconnected(Exception):
    """The client hung up before its request was whole."""


async def read_body(receive: Receive) -> bytes:
    """The whole body. Raises ``BodyTooLargeError``, ``ClientDisconnected``."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        return _check_size(body, len(body))
    chunks: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= MAX_BODY:
            chunks.append(chunk)
        else:
            # A client that is still sending would not read the answer, so the rest is
            # read and dropped.
            chunks.clear()
        if not message.get("more_body") or size > _MAX_DRAIN:
            return _check_size(b"".join(chunks), size)
        message = await receive()
    raise ClientDisconnected


def _check_size(body: bytes, size: int) -> bytes:
    if size > MAX_BODY:
        raise BodyTooLargeError(f"The body is larger than {MAX_BODY // 2**20} MiB.")
    # No JSON in UTF-8 has a zero there, or begins so.
    if body[:2] in _UTF16_MARKS or 0 in body[:2]:
        return _decode_utf16(body)
    return body


_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def _decode_utf16(body: bytes) -> bytes:
    """A body in UTF-16 or UTF-32 as one in UTF-8; any other as it is, for the decoder."""
    try:
        decoded = body.decode(json.detect_encoding(body)).lstrip()
        return decoded.encode() if decoded[:1] in ("{", "[") else body
    except UnicodeError:
        return body


def decode_body(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """A body in its shape. Raises ``InvalidRequestError`` naming the invalid field."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid_value_error(error) from error
    except DECODE_ERRORS as error:
        repaired = repair_json(body)
        if repaired == body:
            raise invalid_value_error(error) from error
        return decode_body(decoder, repaired)


def repair_json(body: bytes) -> bytes:
    """A body that cannot be decoded, without a byte order mark and without half surrogate pairs.

    A half becomes U+FFFD. Pure. Raises ``InvalidRequestError`` where it is not UTF-8.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise invalid_value_error(error) from error
    return _ESCAPE.sub(_replace_half, body.removeprefix(codecs.BOM_UTF8))


def _replace_half(escape: re.Match[bytes]) -> bytes:
    return escape[0] if escape["half"] is None else rb"\ufffd"


#: A character's escape in JSON. One after another, so that the ``\\`` before a ``u`` is not missed.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


class RequestDecoder(Generic[Body]):
    """Request decoder: decodes a body, and collects the fields that its type does not have.

    A body without such fields is decoded once, as by any other decoder. ``normalize`` rewrites
    one whose shapes are not the type's; null means absent, and numbers may be texts then.
    """

    def __init__(
        self,
        kind: type[Body],
        normalize: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self._kind = kind
        self._normalize = normalize
        self._field_kinds = FieldKinds(kind)
        strict = msgspec.defstruct(
            kind.__name__, (), bases=(kind,), frozen=True, forbid_unknown_fields=True
        )
        self._strict: msgspec.json.Decoder[Body] = msgspec.json.Decoder(strict)
        self._tolerant = msgspec.json.Decoder(kind)
        self._names = frozenset(one.encode_name for one in msgspec.structs.fields(kind))

    def decode(self, body: bytes) -> tuple[Body, dict[str, Any]]:
        """The body, and its other fields that go on to the upstream.

        Raises ``InvalidRequestError`` naming the invalid field.
        """
        try:
            return self._strict.decode(body), {}
        except DECODE_ERRORS:
            known = self.decode_known(body)
        fields = decode_body(_fields, body)
        unknown = {name: it for name, it in fields.items() if name not in self._names}
        extra = select_extra_fields(
            {name: decode_body(_any, bytes(it)) for name, it in unknown.items()}
        )
        # What cannot be stored is left out: nobody here knows whether it matters.
        return known, {
            name: it for name, it in extra.items() if not is_nested_deeper(it, MAX_DEPTH)
        }

    def decode_known(self, body: bytes) -> Body:
        """The body without its other fields. Raises what ``decode`` does."""
        try:
            return self._tolerant.decode(body)
        except msgspec.ValidationError as error:
            # An empty list is a body without fields, as PHP writes it.
            fields = decode_body(_any, body) or {}
            if self._normalize is None or not isinstance(fields, dict):
                raise invalid_value_error(error) from error
        except DECODE_ERRORS as error:
            repaired = repair_json(body)
            if repaired == body:
                raise invalid_value_error(error) from error
            return self.decode_known(repaired)
        try:
            normalized = self._normalize(self._field_kinds.normalize(fields))
            return msgspec.convert(normalized, self._kind, strict=False)
        except DECODE_ERRORS as error:
            raise invalid_value_error(error) from error


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def query_params(scope: Scope) -> dict[str, list[str]]:
    """A request's query: each name's values in their order."""
    return parse_qs(scope["query_string"].decode("latin-1"))


def convert_value(value: object, kind: type[T], path: str) -> T:
    """A decoded value in its shape; ``path`` is its field in the body.

    Raises ``InvalidRequestError`` naming the invalid field.
    """
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise invalid_value_error(error, path) from error


def invalid_value_error(error: Exception, at: str = "") -> InvalidRequestError:
    """The one error for a body that cannot be decoded, naming the invalid field.

    ``at`` is the path of the decoded part in the body.
    """
    if isinstance(error, RecursionError):
        return InvalidRequestError(
            "The JSON is nested too deeply.", code="invalid_json", param=at or None
        )
    if isinstance(error, UnicodeDecodeError):
        return InvalidRequestError(
            "The body is not valid UTF-8, the encoding of JSON.", code="invalid_json"
        )
    if not isinstance(error, msgspec.ValidationError):
        reason = _TRUNCATED if "truncated" in str(error) else str(error)
        return InvalidRequestError(f"The body is not valid JSON: {reason}.", code="invalid_json")
    match = _VALIDATION_MESSAGE.match(str(error))
    what, path = (match["what"], match["path"] or "") if match else (str(error), "")
    is_missing = what.startswith("Object missing required field")
    if is_missing:
        path += "." + what.rpartition("field `")[2].rstrip("`")
    param = (at + path).lstrip(".") or None
    code = "invalid_type" if ", got `" in what else "invalid_value"
    if is_missing:
        return InvalidRequestError(f"'{param}' is required.", code=code, param=param)
    location = f"Invalid value for '{param}'" if param else "Invalid body"
    return InvalidRequestError(f"{location}: {_reason(what)}.", code=code, param=param)


_TRUNCATED = "it is empty, or ends too early"
_EXPECTED = re.compile(
    r"Expected `(?P<types>[^`]+)`(?: (?P<bound>[<>]=?) (?P<number>\S+))?"
    r"(?: of length (?P<size>[<>]=?|==)? ?(?P<length>\d+))?"
    r"(?: matching regex '(?P<pattern>.*)')?(?:, got `(?P<given>\w+)`)?",
    re.DOTALL,
)
_UNKNOWN = re.compile(r"Invalid (?:enum )?value '(?P<value>.*)'", re.DOTALL)
_TYPE_NAMES = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "object": "an object",
    "array": "an array",
}
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than", "==": "exactly"}
_UNITS = {"str": "characters", "array": "elements", "object": "fields"}


def _reason(what: str) -> str:
    """What a validation error says, in words of JSON in place of Python's types. Pure."""
    if unknown := _UNKNOWN.fullmatch(what):
        return f"'{unknown['value']}' is not one of its values"
    found = _EXPECTED.fullmatch(what)
    if found is None:
        return what[:1].lower() + what[1:]
    kinds = found["types"].split(" | ")
    *others, last = (_TYPE_NAMES.get(kind, kind) for kind in kinds)
    text = "it has to be " + (f"{', '.join(others)} or {last}" if others else last)
    if found["bound"]:
        text += f" of {_BOUNDS[found['bound']]} {found['number']}"
    if found["length"]:
        size = _BOUNDS[found["size"] or "=="]
        text += f" of {size} {found['length']} {_UNITS.get(kinds[0], 'elements')}"
    if found["pattern"] is not None:
        text += f" that matches {found['pattern']}"
    given = found["given"]
    return text if given is None else f"{text}, not {_TYPE_NAMES.get(given, given)}"


def check_depth(value: object, path: str) -> None:
    """Raise ``InvalidRequestError`` for a value nested too deeply to be stored; ``path`` is its
    field.
    """
    if is_nested_deeper(value, MAX_DEPTH):
        raise InvalidRequestError("The JSON is nested too deeply.", code="invalid_json", param=path)


def drop_nulls(values: dict[str, Any]) -> dict[str, Any]:
    """Without what is null: clients send back nulls for what they left unset."""
    return {name: value for name, value in values.items() if value is not None}
