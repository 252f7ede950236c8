"""Tool call assembly: joins the fragments of an answer's tool calls and numbers the calls. Pure.

Servers mark fragments by an index, by an id, by a name, or by nothing; they repeat what they
have sent, send empty objects first, and end answers with stubs of calls. What was meant is one
list of calls, whatever the marks.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from antiphon.core.deltas import ToolCallDelta
from antiphon.core.provider_fields import join_provider_fields
from antiphon.models.openai.argument_mending import (
    PARALLEL_CALLS,
    named_call,
    normalize_arguments,
    parallel_calls,
    unwrap_arguments,
)
from antiphon.models.openai.chat_completions_answer import PlainCall
from antiphon.models.openai.growing_call import GrowingCall, is_same_json
from antiphon.models.openai.tool_call_fragments import (
    ToolCallFragment,
    is_blank,
)
from antiphon.models.openai.tool_names import known_name


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
        self._calls: list[GrowingCall] = []
        self._sent_calls = 0
        self._call_by_index: dict[int, GrowingCall] = {}
        self._call_by_id: dict[str, GrowingCall] = {}

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
    def cut_call(self) -> str | None:
        """The name of a call whose arguments break off, so that nothing mends them."""
        return next((call.name for call in self._calls if call.is_broken), None)

    @property
    def nameless_arguments(self) -> str | None:
        """The arguments of a call that has no name, if there is one."""
        nameless = (one.arguments for one in self._calls if not one.name)
        return next((arguments for arguments in nameless if not is_blank(arguments)), None)

    def feed(self, fragments: list[ToolCallFragment]) -> list[ToolCallDelta]:
        """The deltas of the fragments in one chunk."""
        out: list[ToolCallDelta] = []
        touched: list[GrowingCall] = []
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
        """Name the calls without a name: by their arguments, or if there is one function only."""
        for call in self._calls:
            if call.name or call.is_blank:
                continue
            named = named_call(call.arguments)
            if named and known_name(named[0], self._tool_names) in self._tool_names:
                call.name = named[0]
            elif len(self._tool_names) == 1:
                (call.name,) = self._tool_names

    def finish(self, *, is_cut: bool = False) -> list[ToolCallDelta]:
        """What has not been emitted yet. ``is_cut``: the last call may lack its end."""
        out: list[ToolCallDelta] = []
        if not is_cut and any(map(self._is_parallel, self._calls)):
            self._split_parallel_calls()
        for call in self._calls:
            if not is_cut and call.is_cut and call.lacks_brace:
                call.append("}")
            if not is_cut:
                call.close_input()
            if not is_cut and not call.sent_pieces:
                arguments = normalize_arguments(call.arguments)
                call.pieces = [unwrap_arguments(arguments, call.name)]
        for call in self._calls:
            self._send(call, out, is_final=True)
        return out

    def _is_parallel(self, call: GrowingCall) -> bool:
        return call.name == PARALLEL_CALLS and call.name not in self._tool_names

    def _split_parallel_calls(self) -> None:
        """Put calls in the place of one that holds them: nothing was sent of it, or behind it."""
        calls: list[GrowingCall] = []
        for call in self._calls:
            inner = parallel_calls(call.arguments) if self._is_parallel(call) else []
            for name, arguments in inner:
                known = known_name(name, self._tool_names)
                part = GrowingCall(len(calls), ToolCallFragment(None, "", known, ""))
                part.append(arguments)
                calls.append(part)
            if not inner:
                call.number = len(calls)
                calls.append(call)
        self._calls = calls

    def _find_call(
        self, fragment: ToolCallFragment, touched: list[GrowingCall]
    ) -> GrowingCall | None:
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

    def _marked_call(self, fragment: ToolCallFragment) -> GrowingCall | None:
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

    def _starts_call(self, call: GrowingCall, fragment: ToolCallFragment, is_touched: bool) -> bool:
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
            is_blank(arguments) or is_same_json(arguments, call.arguments)
        )

    def _start_call(self, fragment: ToolCallFragment) -> GrowingCall:
        call = GrowingCall(len(self._calls), fragment)
        self._calls.append(call)
        if fragment.index is not None:
            call.has_shared_index = fragment.index in self._call_by_index
            self._call_by_index[fragment.index] = call
        if fragment.id:
            self._call_by_id[fragment.id] = call
        return call

    def _update_marks(self, call: GrowingCall, fragment: ToolCallFragment) -> None:
        if fragment.id and (not call.id or not (call.name or call.pieces)):
            call.id = fragment.id
            self._call_by_id.setdefault(fragment.id, call)
        if fragment.name and not call.is_sent:
            if not call.name:
                call.name = fragment.name
            elif call.is_blank:
                call.name = self._join_name(call.name, fragment.name) or call.name

    def _add_arguments(
        self, call: GrowingCall, fragment: ToolCallFragment, out: list[ToolCallDelta]
    ) -> None:
        call.provider_fields = join_provider_fields(call.provider_fields, fragment.provider_fields)
        arguments = fragment.arguments
        if not (call.pieces or fragment.is_custom) and arguments.rstrip().endswith("}"):
            arguments = unwrap_arguments(normalize_arguments(arguments), call.name)
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

    def _is_name_sure(self, call: GrowingCall) -> bool:
        if not call.name or self._is_parallel(call):
            return False
        return not call.is_blank or (
            call.name in self._tool_names
            and not any(one.startswith(call.name) and one != call.name for one in self._tool_names)
        )

    def _send(self, call: GrowingCall, out: list[ToolCallDelta], *, is_final: bool = False) -> None:
        """Emit what is sure of a call, and the calls that waited for its beginning."""
        if call.is_sent:
            arguments = call.take_arguments(is_final=is_final)
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
                arguments = call.take_arguments(is_final=is_final)
                out.append(_delta(call, call.id or None, call.name, arguments))


def _delta(
    call: GrowingCall, call_id: str | None, name: str | None, arguments: str
) -> ToolCallDelta:
    fields, call.provider_fields = call.provider_fields, None
    return ToolCallDelta(call.number, call_id, name, arguments, fields)
