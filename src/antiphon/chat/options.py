"""Conversation options: the keyword arguments of the constructors and of ``send``, validated."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar

import msgspec

from antiphon.core.context_policies import ContextPolicy, Summarize, TokenBudget, Window
from antiphon.core.turns import Options
from antiphon.errors import ConfigError, InvalidRequestError
from antiphon.settings import Settings, load_settings
from antiphon.tools.function_tool import Tool
from antiphon.tools.toolbox import Approver, Toolbox

#: The options of a stored turn that a resumed conversation inherits.
_INHERITED_OPTIONS = (
    "temperature",
    "top_p",
    "max_output_tokens",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "stop",
    "reasoning_effort",
    "truncation",
    "metadata",
    "user",
)
_POLICIES = (Window, TokenBudget, Summarize)

S = TypeVar("S", str, str | None)

#: What other libraries call an argument, or have one for, and what to do here.
_FOREIGN_NAMES = {
    **dict.fromkeys(
        ("system", "system_prompt", "system_message"), ". Did you mean 'instructions'?"
    ),
    **dict.fromkeys(
        ("store", "base_url", "api_key", "api_key_env"),
        ": it is a setting, as in settings=load_settings({'store': 'sqlite:PATH'}), and a key is"
        " in the environment",
    ),
    **dict.fromkeys(
        ("response_format", "response_model", "output_type", "result_type", "text_format"),
        ". Did you mean 'returns', of send and stream?",
    ),
}

Decisions: TypeAlias = Mapping[str, bool | str]


class ChatOptions(TypedDict, total=False):
    """What a conversation can be given besides its model; all of it may be left out.

    ``instructions`` are shown to the model first at every turn. ``tools`` are functions
    (``@tool`` or plain and typed) and ``Tool`` objects; ``deps`` is what they get in their
    ``ToolContext``; ``approve`` is asked before a tool runs that needs approval, and answers
    True, False or the reason for its no. ``tool_choice`` is "auto", "none", "required" or a
    tool's name. ``max_tool_rounds`` (10) bounds how often in one turn the model may call
    tools. ``context`` is a policy or several: what of a long history the model is shown.
    ``temperature`` (0 to 2), ``top_p`` (0 to 1), ``max_output_tokens``, ``reasoning_effort``:
    the model's own defaults where left out. ``timeout`` is in seconds, for a whole turn with
    its tools and retries. ``settings``: else file and environment, as on the command line.
    """

    instructions: str | None
    tools: Sequence[Tool[..., Any] | Callable[..., Any]]
    deps: Any
    approve: Approver | None
    context: ContextPolicy | Sequence[ContextPolicy]
    temperature: float | None
    top_p: float | None
    max_output_tokens: int | None
    reasoning_effort: str | None
    tool_choice: str
    parallel_tool_calls: bool
    max_tool_rounds: int
    timeout: float | None
    settings: Settings | None


class SendOptions(TypedDict, total=False):
    """What goes along with a message; all of it may be left out.

    ``images`` are paths, URLs, bytes or PIL images; ``detail`` is how closely the model
    looks at them. ``decisions`` answers calls that wait for a person, by call id: True runs
    the tool, False or a reason declines.
    """

    images: Sequence[Any]
    detail: Literal["auto", "low", "high"]
    decisions: Decisions | None


class ConversationOptions:
    """A conversation's settings, tools and policies."""

    def __init__(self, options: ChatOptions, base_options: Options | None = None) -> None:
        check_option_names(options, ChatOptions)
        self.settings = resolve_settings(options.get("settings"))
        self.toolbox = Toolbox(
            options.get("tools", ()), deps=options.get("deps"), approve=options.get("approve")
        )
        self.context_policies = _policies(options.get("context", ()))
        self.max_tool_rounds = _check_integer("max_tool_rounds", options.get("max_tool_rounds", 10))
        self.timeout = _check_timeout(options.get("timeout"))
        self._base_options = _merge_options(options, base_options or Options())
        self._tool_choice = check_string("tool_choice", options.get("tool_choice")) or "auto"

    def turn_options(self, text_format: dict[str, Any] | None = None) -> Options:
        """The options of one turn."""
        specs = self.toolbox.specs
        choice = self._tool_choice
        if choice not in ("auto", "none", "required"):
            if choice not in [spec.name for spec in specs]:
                raise InvalidRequestError(
                    f"tool_choice names no tool: there is no '{choice}'.", param="tool_choice"
                )
            choice = f"function:{choice}"
        return msgspec.structs.replace(
            self._base_options, tools=specs, tool_choice=choice, text_format=text_format
        )

    def copy(self) -> ConversationOptions:
        """One whose tools can be added to apart from this one's."""
        twin = copy.copy(self)
        twin.toolbox = self.toolbox.copy()
        return twin


def check_option_names(given: Mapping[str, Any], known: Any) -> None:
    """Refuse keywords that a ``TypedDict`` of options does not have, as Python itself would."""
    for name in given:
        if name not in known.__annotations__:
            from difflib import get_close_matches  # loaded on first use

            similar = get_close_matches(name, known.__annotations__, 1)
            hint = f". Did you mean '{similar[0]}'?" if similar else _FOREIGN_NAMES.get(name, "")
            raise TypeError(f"got an unexpected keyword argument '{name}'{hint}")


def _merge_options(given: ChatOptions, base_options: Options) -> Options:
    lasting = {name: getattr(base_options, name) for name in _INHERITED_OPTIONS}
    for name in _INHERITED_OPTIONS:
        if name in given:
            lasting[name] = given[name]  # type: ignore[literal-required]
    _check_range("temperature", lasting["temperature"], 2)
    _check_range("top_p", lasting["top_p"], 1)
    lasting["reasoning_effort"] = check_string("reasoning_effort", lasting["reasoning_effort"])
    if lasting["max_output_tokens"] is not None:
        _check_integer("max_output_tokens", lasting["max_output_tokens"], 1)
    is_parallel = given.get("parallel_tool_calls", True)
    if not isinstance(is_parallel, bool):
        raise InvalidRequestError(
            f"parallel_tool_calls is True or False, not {is_parallel!r:.100}.",
            code="invalid_type",
            param="parallel_tool_calls",
        )
    return Options(**lasting, parallel_tool_calls=is_parallel)


def _policies(given: ContextPolicy | Iterable[ContextPolicy]) -> tuple[ContextPolicy, ...]:
    policies: tuple[Any, ...] = (given,)
    # A text is no list of policies: an error would name its first letter.
    if isinstance(given, Iterable) and not isinstance(given, str):
        policies = tuple(given)
    for policy in policies:
        if not isinstance(policy, _POLICIES):
            raise InvalidRequestError(
                f"A context policy is a Window, TokenBudget or Summarize, not {policy!r}.",
                code="invalid_type",
                param="context",
            )
    return policies


def _check_range(name: str, value: object, maximum: float) -> None:
    if value is not None and not (_is_number(value) and 0 <= value <= maximum):  # type: ignore[operator]
        raise InvalidRequestError(
            f"{name} is a number from 0 to {maximum}, not {value!r}.", param=name
        )


def _check_integer(name: str, value: Any, minimum: int = 0) -> int:
    if type(value) is not int or value < minimum:
        raise InvalidRequestError(
            f"{name} is a whole number of at least {minimum}, not {value!r}.", param=name
        )
    return value


def resolve_settings(settings: Settings | None) -> Settings:
    """The settings given, else those of file and environment. Raises ``ConfigError``."""
    if settings is None:
        return load_settings()
    if not isinstance(settings, Settings):
        raise ConfigError(
            f"settings are what load_settings() returns, not a {type(settings).__name__}:"
            " load_settings({...}) takes single ones by their names."
        )
    return settings


def check_string(name: str, value: str | None) -> str | None:
    """A string, or None. Raises ``InvalidRequestError``: anything else could not be read again."""
    if value is not None and not isinstance(value, str):
        raise InvalidRequestError(
            f"{name} is a string, not {value!r:.100}.", code="invalid_type", param=name
        )
    return plain_string(value)


def plain_string(value: S) -> S:
    """The string itself of a ``str`` subclass, such as NumPy's: encoders know ``str`` alone."""
    return str.__str__(value) if isinstance(value, str) else value


def check_response_id(value: str | None, param: str = "response_id") -> str:
    """A response's id. Raises ``InvalidRequestError`` for what cannot be one."""
    if isinstance(value, str):
        if value.startswith(("chat_", "conv_")):
            raise InvalidRequestError(
                f"'{value}' is the id of a chat: give that of a response (resp_…),"
                " such as the head of the chat in list_chats().",
                param=param,
            )
        return str.__str__(value)
    if value is None:
        raise InvalidRequestError(
            "There is no response: a conversation without turns has no response_id.",
            code="missing_required_parameter",
            param=param,
        )
    raise InvalidRequestError(
        f"{param} is a string (resp_…), not {type(value).__name__}.",
        code="invalid_type",
        param=param,
    )


def check_limit(limit: int) -> int:
    """How many are listed at most. Raises ``InvalidRequestError``."""
    return _check_integer("limit", limit, 1)


def _check_timeout(value: float | None) -> float | None:
    if value is not None and not (_is_number(value) and value > 0):
        raise InvalidRequestError(
            f"timeout is in seconds, more than 0, not {value!r}.", param="timeout"
        )
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
