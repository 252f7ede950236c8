"""Answer choices: picks the choice that counts, where a server sends more than one. No I/O.

One is asked for. Some servers begin to count at another number than 0, and some split an answer:
its words are one choice and its calls another.
"""

from __future__ import annotations

from antiphon.models.openai.chat_completions_answer import Choice
from antiphon.models.openai.lenient_json import count_of_value


class ChoiceSelector:
    """The first choice of each chunk; remembers those that may have to stand in for it."""

    def __init__(self) -> None:
        #: Those that are not the first; once that has words, only those with calls.
        self._others: list[Choice] = []

    def first(self, choices: list[Choice], *, has_words: bool) -> Choice | None:
        """The choice of index 0; one without an index has its position. None: it is not there."""
        first = next(
            (one for position, one in enumerate(choices) if choice_index(one, position) == 0), None
        )
        if len(choices) > 1 or first is None:
            others = [one for one in choices if one is not first]
            self._others += [one for one in others if _has_calls(one)] if has_words else others
        return first

    def lowest(self) -> list[Choice]:
        """The chunks of the choice with the lowest index, where none has the index 0."""
        return _lowest(self._others)

    def split_calls(self, *, is_announced: bool) -> list[Choice]:
        """The choice with the calls of an answer whose words are another one.

        ``is_announced``: the first choice ends because of calls, and has none.
        """
        calling = [one for one in self._others if _has_calls(one)]
        if is_announced or all(choice_index(one, 0) == 0 for one in self._others):
            return _lowest(calling)
        return []


def choice_index(choice: Choice, position: int) -> int:
    """A choice's number: its index, or else its position."""
    index = count_of_value(choice.index)
    return position if index is None else index


def _lowest(choices: list[Choice]) -> list[Choice]:
    first = min((choice_index(one, 0) for one in choices), default=0)
    return [one for one in choices if choice_index(one, 0) == first]


def _has_calls(choice: Choice) -> bool:
    message = choice.message or choice.delta
    return bool(choice.tool_calls or (message is not None and message.tool_calls))
