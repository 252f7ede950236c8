"""Tool call assembly: joins the fragments of an answer's tool calls and numbers the calls. Pure.

Servers mark fragments by an index, by an id, by a name, or by nothing; they repeat what they
have sent, send empty objects first, and end answers with stubs of calls. What was meant is one
list of calls, whatever the marks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection

import msgspec

from antiphon.core.custom_tool_input import INPUT_END, INPUT_START
from antiphon.core.deltas import ToolCallDelta
from antiphon.core.provider_fields import ProviderFields, join_provider_fields
from antiphon.models.openai.argument_mending import is_object, normalize_arguments
from antiphon.models.openai.chat_completions_answer import PlainCall
from antiphon.models.openai.sse import DECODE_ERRORS
from antiphon.models.openai.tool_call_fragments import (
    LONGEST_BLANK,
    NO_ARGUMENTS,
    ToolCallFragment,
    is_blank,
)
from antiphon.models.openai.tool_names import known_name

#: Beginnings of arguments that hold none.
_MAYBE_NO_ARGUMENTS = NO_ARGUMENTS | {"{"}
#: What may stand between two objects.
_SEPARATORS = " \t\r\n,;"
_OPENING = re.compile(r"[{\[\\]")
_CONTROL = re.compile(r"[\x00-\x1f]")
_STRING_PARTS = re.compile(r'\\(?s:.)?|"|[\x00-\x1f]|[^"\\\x00-\x1f]+')
_STRUCTURE = re.compile(r'\\(?s:.)?|["{}\[\]]')


class _JsonEnd:
    """Finds where a JSON object or array ends that comes in pieces."""

    def __init__(self) -> None:
        self.is_reached = False
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def feed(self, piece: str) -> int:
        """How many characters of the piece belong to the value."""
        start = 1 if self._is_escaped and piece else 0
        self._is_escaped = self._is_escaped and not piece
        for match in _STRUCTURE.finditer(piece, start):
            sign = match[0]
            if sign[0] == "\\":
                self._is_escaped = len(sign) == 1
            elif sign == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += 1 if sign in "{[" else -1
                if self._depth <= 0:
                    self.is_reached = True
                    return match.end()
        return len(piece)

    def escape_controls(self, piece: str) -> str:
        """The next piece with the control characters in its strings as JSON has them."""
        in_string, out, at = self._in_string, [], 1 if self._is_escaped else 0
        out.append(piece[:at])
        for match in _STRING_PARTS.finditer(piece, at):
            part = match[0]
            if part == '"':
                in_string = not in_string
            elif in_string and part[0] < " ":
                part = json.dumps(part)[1:-1]
            out.append(part)
        return "".join(out)

    def feed_inner(self, piece: str) -> None:
        """Take a piece without the end of anything but strings."""
        if self._is_escaped or _OPENING.search(piece):
            self.feed(piece)
        elif piece.count('"') % 2:
            self._in_string = not self._in_string


class _Call:
    """A call that grows."""

    def __init__(self, number: int, fragment: ToolCallFragment) -> None:
        self.number = number
        self.index = fragment.index
        self.id = fragment.id
        self.name = fragment.name
        #: Whether it began under the index of a call before it.
        self.has_shared_index = False
        #: Whether its beginning was sent; the pieces of its arguments, and how many were sent.
        self.is_sent = False
        self.sent_pieces = 0
        self.pieces: list[str] = []
        #: What has not been sent of the fields beside it.
        self.provider_fields: ProviderFields | None = None
        self._size = 0
        self._end = _JsonEnd()
        self._is_cumulative = False
        self._is_custom = fragment.is_custom
        if fragment.is_custom:
            self._push(INPUT_START)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    @property
    def is_complete(self) -> bool:
        """Whether the arguments are a whole object."""
        return self._end.is_reached

    @property
    def is_cut(self) -> bool:
        is_open = bool(self.pieces) and self.pieces[0][0] in "{[" and not self.is_complete
        # The end of a custom tool's text is that of the answer.
        return is_open and not self._is_custom

    @property
    def lacks_brace(self) -> bool:
        """Whether a brace makes it complete; of what has no member yet, nobody knows."""
        return self.arguments.strip() != "{" and is_object(self.arguments + "}")

    @property
    def is_blank(self) -> bool:
        return not self.sent_pieces and self._size <= LONGEST_BLANK and is_blank(self.arguments)

    @property
    def has_sendable_arguments(self) -> bool:
        """Whether the arguments will stay as they are: some may still be replaced at the end."""
        if self.sent_pieces or not self.pieces:
            return bool(self.pieces)
        if self.pieces[0][0] != "{" or "".join(self.pieces[:2]).startswith(("{'", "{{")):
            # At the end it may be found to be an object.
            return False
        if self._size <= LONGEST_BLANK:
            text = "".join(self.arguments.split())
            return text not in _MAYBE_NO_ARGUMENTS and not "null".startswith(text)
        return True

    def is_repeated_by(self, fragment: ToolCallFragment) -> bool:
        """Whether a fragment under this call's id has the same name and the same arguments."""
        return (
            fragment.name == self.name
            and self.is_complete
            and not is_blank(fragment.arguments)
            and _is_same_json(fragment.arguments, self.arguments)
        )

    def append(self, piece: str) -> str:
        """Take a piece of the arguments; what is left of it is another call's."""
        if self.is_complete:
            piece = piece.strip(_SEPARATORS)
            if not piece.startswith("{") or is_blank(piece):
                # Stray signs behind an object are no arguments.
                return ""
            if not self.is_blank:
                return "" if _is_same_json(piece, self.arguments) else piece
        elif not self.pieces:
            piece = piece.lstrip()
        elif piece.startswith("{") and len(piece) >= self._size:
            piece = self._new_part(piece)
        if piece and self.is_blank and self.pieces and not self._may_continue(piece):
            # What came first was a placeholder.
            self.pieces, self._size, self._end = [], 0, _JsonEnd()
        return self._push(piece) if piece else ""

    def append_inner(self, piece: str) -> bool:
        """Take a piece that can only be the inside of an object; False: it may be more."""
        if not self.sent_pieces or self.is_complete:
            return False
        if _CONTROL.search(piece):
            return False
        if piece[0] == "{" or "}" in piece or "]" in piece or self.pieces[0][0] not in "{[":
            return False
        self._end.feed_inner(piece)
        self.pieces.append(piece)
        self._size += len(piece)
        self.sent_pieces += 1
        return True

    def close_input(self) -> None:
        """The text of a custom tool is whole."""
        if self._is_custom and not self.is_complete:
            self._push(INPUT_END)

    def _may_continue(self, piece: str) -> bool:
        return not (self.is_complete or piece.lstrip().startswith("{"))

    def _push(self, piece: str) -> str:
        """Add a piece; what is left of it stands behind the arguments' end."""
        first = self.pieces[0] if self.pieces else piece
        # Only the end of an object can be seen.
        size = len(piece)
        if first[0] in "{[":
            if _CONTROL.search(piece):
                piece = self._end.escape_controls(piece)
            size = self._end.feed(piece)
        self.pieces.append(piece[:size])
        self._size += size
        return self.append(piece[size:]) if size < len(piece) else ""

    def _new_part(self, piece: str) -> str:
        """What a piece adds that repeats all before it, as some servers do."""
        text = self.arguments
        if piece.startswith(text) and (self._is_cumulative or not _is_json_beginning(text + piece)):
            self._is_cumulative = True
            return piece[len(text) :]
        return piece


class ToolCallAssembler:
    """Assigns the fragments of one answer to tool calls, numbered from 0.

    A fragment belongs to the call with its index, or with its id where there is no index, or
    else to the last one. A new id or another name begins a new call, and so does a second
    object of arguments. ``tool_names`` are those of the functions that the model may call: they
    show where a name that comes in pieces ends.

    The beginning of a call is emitted once its name is sure, and calls begin in their order.
    """

    def __init__(self, tool_names: Collection[str] = ()) -> None:
        self._tool_names = frozenset(tool_names)
        self._calls: list[_Call] = []
        self._sent_calls = 0
        self._call_by_index: dict[int, _Call] = {}
        self._call_by_id: dict[str, _Call] = {}

    @property
    def has_calls(self) -> bool:
        """Whether a function has been called."""
        return any(call.name for call in self._calls)

    @property
    def has_arguments(self) -> bool:
        """Whether functions have been called, and each with arguments."""
        return self.has_calls and not any(call.is_blank for call in self._calls)

    @property
    def has_cut_call(self) -> bool:
        """Whether an object of arguments has not come to its end."""
        return any(call.is_cut for call in self._calls)

    @property
    def nameless_arguments(self) -> str | None:
        """The arguments of a call that has no name, if there is one."""
        nameless = (one.arguments for one in self._calls if not one.name)
        return next((arguments for arguments in nameless if not is_blank(arguments)), None)

    def feed(self, fragments: list[ToolCallFragment]) -> list[ToolCallDelta]:
        """The deltas of the fragments in one chunk."""
        out: list[ToolCallDelta] = []
        touched: list[_Call] = []
        for given in fragments:
            fragment = self._with_known_name(given) if given.name else given
            call = self._find_call(fragment, touched)
            if call is None:
                if fragment.is_stub and not fragment.id:
                    continue
                call = self._start_call(fragment)
            else:
                self._update_marks(call, fragment)
            touched.append(call)
            self._add_arguments(call, fragment, out)
        return out

    def continue_call(self, piece: PlainCall) -> ToolCallDelta | None:
        """Fast path: the next piece of a call that grows, as nearly all are.

        None: it may be more, and has not been taken.
        """
        call = self._call_by_index.get(piece.index)
        arguments = piece.function.arguments
        if call is None or not arguments or piece.function.name:
            return None
        if (piece.id and piece.id != call.id) or not call.append_inner(arguments):
            return None
        return ToolCallDelta(call.number, None, None, arguments)

    def feed_whole(self, fragments: list[ToolCallFragment]) -> list[ToolCallDelta]:
        """The deltas of all calls of an answer in one piece, of which each entry is one."""
        out: list[ToolCallDelta] = []
        for given in fragments:
            if not given.is_stub:
                fragment = self._with_known_name(given)
                self._add_arguments(self._start_call(fragment), fragment, out)
        return out

    def _with_known_name(self, fragment: ToolCallFragment) -> ToolCallFragment:
        name = known_name(fragment.name, self._tool_names)
        return fragment if name == fragment.name else msgspec.structs.replace(fragment, name=name)

    def complete_names(self) -> None:
        """Where the model may call one function only, calls without a name are its."""
        if len(self._tool_names) == 1:
            for call in self._calls:
                if not call.name and not call.is_blank:
                    (call.name,) = self._tool_names

    def finish(self, *, is_cut: bool = False, is_announced: bool = False) -> list[ToolCallDelta]:
        """What has not been emitted yet. ``is_cut``: the last call may lack its end.

        ``is_announced``: the answer ends because of its calls, so that a brace is all they lack.
        """
        out: list[ToolCallDelta] = []
        for call in self._calls:
            if is_announced and call.is_cut and call.lacks_brace:
                call.append("}")
            if not is_cut:
                call.close_input()
            if not is_cut and not call.sent_pieces:
                call.pieces = [normalize_arguments(call.arguments)]
        for call in self._calls:
            self._send(call, out, is_final=True)
        return out

    def _find_call(self, fragment: ToolCallFragment, touched: list[_Call]) -> _Call | None:
        """The call that a fragment belongs to; None: it begins one, or is nothing."""
        call = self._marked_call(fragment)
        if call is None:
            last = self._calls[-1] if self._calls else None
            if fragment.id or fragment.name or last is None or last.is_complete:
                return None
            is_beginning = fragment.arguments.lstrip().startswith("{")
            if last.is_blank:
                # The arguments of a call that began under another's index.
                return last if last.name and (last.has_shared_index or is_beginning) else None
            # An index that grows with each piece.
            return None if is_beginning else last
        return None if self._starts_call(call, fragment, call in touched) else call

    def _marked_call(self, fragment: ToolCallFragment) -> _Call | None:
        by_id = self._call_by_id.get(fragment.id) if fragment.id else None
        if fragment.index is None:
            return by_id or (self._calls[-1] if self._calls else None)
        call = self._call_by_index.get(fragment.index)
        if by_id is None or by_id is call:
            return call
        if call is None:
            # Some servers give one id to all calls, others each piece of a call an index.
            return by_id if not fragment.name or by_id.is_repeated_by(fragment) else None
        return by_id if by_id.index == fragment.index else call

    def _starts_call(self, call: _Call, fragment: ToolCallFragment, is_touched: bool) -> bool:
        if not fragment.name:
            return False
        has_new_id = bool(fragment.id and call.id and fragment.id != call.id)
        if not call.name:
            return has_new_id and not call.is_blank
        arguments = fragment.arguments.lstrip()
        can_start = not arguments or arguments.startswith("{") or not call.pieces
        if has_new_id or (is_touched and not fragment.id):
            return can_start
        if call.is_blank:
            return self._join_name(call.name, fragment.name) is None
        if fragment.name != call.name:
            return can_start
        return call.is_complete and not (
            is_blank(arguments) or _is_same_json(arguments, call.arguments)
        )

    def _start_call(self, fragment: ToolCallFragment) -> _Call:
        call = _Call(len(self._calls), fragment)
        self._calls.append(call)
        if fragment.index is not None:
            call.has_shared_index = fragment.index in self._call_by_index
            self._call_by_index[fragment.index] = call
        if fragment.id:
            self._call_by_id[fragment.id] = call
        return call

    def _update_marks(self, call: _Call, fragment: ToolCallFragment) -> None:
        if fragment.id and (not call.id or not (call.name or call.pieces)):
            call.id = fragment.id
            self._call_by_id.setdefault(fragment.id, call)
        if fragment.name and not call.is_sent:
            if not call.name:
                call.name = fragment.name
            elif call.is_blank:
                call.name = self._join_name(call.name, fragment.name) or call.name

    def _add_arguments(
        self, call: _Call, fragment: ToolCallFragment, out: list[ToolCallDelta]
    ) -> None:
        call.provider_fields = join_provider_fields(call.provider_fields, fragment.provider_fields)
        arguments = fragment.arguments
        if not (call.pieces or fragment.is_custom) and arguments.rstrip().endswith("}"):
            arguments = normalize_arguments(arguments)
        rest = call.append(arguments)
        self._send(call, out)
        while rest:
            # Another object of arguments is another call of the same function.
            call = self._start_call(
                msgspec.structs.replace(
                    fragment, name=call.name, id="" if fragment.id == call.id else fragment.id
                )
            )
            rest = call.append(rest)
            self._send(call, out)

    def _join_name(self, name: str, piece: str) -> str | None:
        """A name with one more piece of it; None: the piece is another call's name."""
        joined, names = name + piece, self._tool_names
        if piece == name:
            return joined if name not in names and joined in names else name
        if any(one.startswith(joined) for one in names) and (
            name not in names or piece not in names
        ):
            return joined
        if name in names or piece in names:
            return piece if name not in names and piece.startswith(name) else None
        return piece if piece.startswith(name) else joined

    def _is_name_sure(self, call: _Call) -> bool:
        if not call.name:
            return False
        return not call.is_blank or (
            call.name in self._tool_names
            and not any(one.startswith(call.name) and one != call.name for one in self._tool_names)
        )

    def _send(self, call: _Call, out: list[ToolCallDelta], *, is_final: bool = False) -> None:
        """Emit what is sure of a call, and the calls that waited for its beginning."""
        if call.is_sent:
            arguments = _take_arguments(call, is_final=is_final)
            if arguments or call.provider_fields is not None:
                out.append(_delta(call, None, None, arguments))
            return
        while self._sent_calls < len(self._calls):
            call = self._calls[self._sent_calls]
            if not (is_final or self._is_name_sure(call)):
                return
            self._sent_calls += 1
            if call.name:
                call.is_sent = True
                call.name = known_name(call.name, self._tool_names)
                arguments = _take_arguments(call, is_final=is_final)
                out.append(_delta(call, call.id or None, call.name, arguments))


def _delta(call: _Call, call_id: str | None, name: str | None, arguments: str) -> ToolCallDelta:
    fields, call.provider_fields = call.provider_fields, None
    return ToolCallDelta(call.number, call_id, name, arguments, fields)


def _take_arguments(call: _Call, *, is_final: bool) -> str:
    """The arguments that have not been emitted, as far as they are sure."""
    if not (is_final or call.has_sendable_arguments):
        return ""
    text = "".join(call.pieces[call.sent_pieces :])
    call.sent_pieces = len(call.pieces)
    return text


def _is_same_json(one: str, other: str) -> bool:
    if one.strip() == other.strip():
        return True
    try:
        return bool(msgspec.json.decode(one) == msgspec.json.decode(other))
    except DECODE_ERRORS:
        return False


def _is_json_beginning(text: str) -> bool:
    """Whether more text can make it JSON."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text) or error.msg.startswith("Unterminated string")
    except (ValueError, RecursionError):
        # Too many digits, or too deep.
        pass
    return True
