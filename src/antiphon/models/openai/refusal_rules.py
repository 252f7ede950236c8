"""Refusal rules: which request rule an upstream's refusal calls for, and what was learnt of it.

Upstreams refuse the same things in many words. A refusal only proposes rules, most likely
first: one that would not change the request is passed over, and one is remembered only when
the upstream has then answered. So a wrong guess costs one request and nothing else. No I/O.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator
from typing import Any, Final, TypeAlias

import msgspec

from antiphon.core.extra_fields import RESERVED_FIELDS
from antiphon.core.provider_fields import EXTRA_FIELDS
from antiphon.core.turns import INCLUDE_ENCRYPTED_REASONING
from antiphon.errors import AntiphonError, InvalidRequestError, ModelError
from antiphon.models.openai.request_rules import (
    apply_rules,
    decode_request,
    without_field,
    without_schema_keyword,
    without_tools_of_type,
)
from antiphon.models.openai.tool_type_rules import refused_tool_types
from antiphon.models.openai.upstream_errors import TOOL_USE_FAILED

log = logging.getLogger("antiphon")

_encode = msgspec.json.Encoder().encode

Rules: TypeAlias = frozenset[str]


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE | re.DOTALL)


#: How an upstream says that it does not take something at all.
_UNKNOWN: Final = _pattern(
    r"unknown|unrecogni[sz]ed|unexpected|unsupported (field|param)|\bextra\b|additional propert|"
    r"no such|not (permitted|known|recogni[sz]ed)"
)
_UNSUPPORTED: Final = _pattern(
    r"unknown|unrecogni[sz]ed|unsupported|unexpected|unavailable|deprecated|forbidden|\bextra\b|"
    r"additional propert|cannot find|no such|did you mean|"
    r"\bremove\b|"
    r"only (be )?(allowed|valid|used|supported) (when|if|with)\b|"
    r"not (\w+ )?(supported?|permitted|allowed|available|accepted|recogni[sz]ed|enabled|found)|"
    r"n't (support|accept|allow|recogni[sz]e|exist|work)|"
    r"invalid (argument|field|param|key|property|name)|illegal|不支持|未知|无效|非法"
)

#: Words of refusals, and the rules that they call for; all that match are proposed, in this order.
_RULES_BY_WORDS: Final[list[tuple[re.Pattern[str], tuple[str, ...]]]] = [
    (_pattern(r"thought_?\s?signature"), ("signed-calls",)),
    (_pattern(r"\buse\W+max_?completion_?tokens"), ("max-completion-tokens",)),
    (_pattern(r"非流式"), ("always-stream",)),
    (_pattern(r"\binclude_usage\b"), (without_field("stream_options"),)),
    (
        _pattern(
            r"\A(?!.*invalid schema)"
            r".*additionalProperties\W.{0,30}\b(required|must be|has to be|set to)\b"
        ),
        ("closed-schemas",),
    ),
    (
        _pattern(
            r"function_?response\W+name|\btool (message|result)s?\b.{0,30}\bname\b|"
            r"\bname\b.{0,30}\brole\W{1,3}tool|\bname\b.{0,20}tool (message|result)"
        ),
        ("named-tool-outputs",),
    ),
    (
        _pattern(
            r"\bcontent\b.{0,40}(tool|call).{0,40}\bboth\b|both.{0,30}\bcontent\b.{0,30}(tool|call)|"
            r"(tool|call)\S*.{0,40}(must|can) ?not (have|contain|include)\W+content"
        ),
        ("calls-without-content",),
    ),
    (
        _pattern(
            r"stream(ing)?\b.{0,20}(disabled|turned off)|"
            r"stream\w*.{0,60}(not|un)\s?-?(be |yet )?(support|available|allow|enabled|permitted)|"
            r"(n't|not) (support|allow|permit)\w*.{0,30}stream|verified to stream|"
            r"cannot.{0,30}\bstream|unsupported (for|with|in)\W+stream"
        ),
        ("never-stream",),
    ),
    (
        _pattern(
            r"non-?\s?stream|only.{0,20}\bstream|stream(ing)?( mode)? (is |be )?required|"
            r"(must|please).{0,40}\bstream|stream\W{1,3}false\b.{0,30}(not|un|must)|"
            r"(\bnot|n't|unsupported)\b.{0,40}stream\W{1,3}false\b|"
            r"stream(ing)?\W+(must|has to|should|needs to) be (set to true|true|enabled)"
        ),
        ("always-stream",),
    ),
    (
        _pattern(r"(single|one|parallel|multiple).{0,20}(tool|function)[- _]?call(s|ing)?\b"),
        ("single-calls",),
    ),
    (
        _pattern(
            r"(function|tool)\S*[._ ]name\b.*(pattern|invalid|match|must|regular)|"
            r"invalid (function|tool) name|\bname of the (function|tool)\b"
        ),
        ("plain-function-names",),
    ),
    (
        _pattern(
            r"\b(last|final)\b.{0,30}\b(role|message|user|content)\b|pre-?fill|"
            r"continu\w+ (from )?an assistant|messages\[-1\]|assistant messages? at the end|"
            r"(end|finish|ends|ending)\b.{0,12} with\b.{0,20}\buser\b|最后"
        ),
        ("user-message-last",),
    ),
    (
        _pattern(
            r"\bids?\b.*((of|length) 9|9 (char|alpha|letter)|nine|\{9\})|"
            r"(of 9|nine|\{9\}).*\bids?\b"
        ),
        ("nine-character-call-ids",),
    ),
    (
        _pattern(
            r"(tool|call|function)\S*?[._ ]?ids?\b"
            r".*(pattern|too long|max\w* length|at most|must|a-z|invalid|unique|duplicate|exceed)|"
            r"(duplicate|repeated|invalid|unique).*(tool|call)\S*?[._ ]?ids?\b"
        ),
        ("plain-call-ids", "nine-character-call-ids"),
    ),
    (
        _pattern(r"(user|system).{0,40}(after|follow|behind).{0,20}\btools?\b"),
        ("assistant-after-tool", "single-system-message"),
    ),
    (
        _pattern(r"\btools?\b.*(must|should|has to|expected).*assistant"),
        ("assistant-after-tool",),
    ),
    (
        _pattern(
            r"system.{0,12}(第一|首|最前|开头)|"
            r"(system|developer).*(begin|first|start|single|\bone\b|multiple|several|more than|"
            r"once|after|between|middle|position|order|twice|duplicate|\btop\b|lead|only)|"
            r"(first|single|multiple|more than one|only one|second).*(system|developer)"
        ),
        ("single-system-message", "no-system-role"),
    ),
    (
        _pattern(r"\bsystem\b|\bdeveloper\b|only.*\buser\b.*\bassistant\b"),
        ("no-system-role", "single-system-message"),
    ),
    (
        _pattern(
            r"alternat|交替|\buser\b.{0,20} (must|should) be followed by|"
            r"expected message \d+ to be from|cannot follow|"
            r"(2|two|more) (or more )?assistant messages|consecutive|in a row|same role|"
            r"(first|begin|start).*\buser\b|"
            r"\buser\b.*(first|begin|start)|role\W+(user|assistant)\W+after|"
            r"\bodd (number|index)|immediately after a user"
        ),
        ("alternating-roles", "single-system-message"),
    ),
    (
        _pattern(
            r"no user|user.*(required|missing|at least)|"
            r"(at least|must|need|require|expect|missing).*\buser\b|"
            r"contents? (is|are) (empty|required|not)|at least one (message|content)"
        ),
        ("user-message-required", "alternating-roles"),
    ),
    (
        _pattern(
            r"empty|blank|without content|未正常接收到prompt|at least (one|1) (character|token)|"
            r"<nil>|must have a text|为空|\b(has|have|with) no content|"
            r"(required|missing)\b.{0,30}\bcontent\b|(messages?|消息|参数)\W{0,3}(参数)?非法|"
            r"content\b.*(required|missing|null|must)|(either|must).*\bcontent\b"
        ),
        ("no-empty-messages",),
    ),
    (
        _pattern(
            r"content\b.{0,40}(must|should|expected|valid|needs?).{0,20}(string|str|text)\b|"
            r"cannot unmarshal array.*content"
        ),
        ("text-contents",),
    ),
    (
        _pattern(
            r"(missing|required).{0,60}\W(id|status)\b|\b(id|status)\W.{0,20}(missing|required)"
        ),
        ("named-items",),
    ),
    (
        _pattern(r"\bdetail\b|\boriginal\b"),
        ("no-image-detail",),
    ),
    (
        _pattern(
            r"image|picture|media|multimodal|output.*string|string.*output|input_image|"
            r"output of (a )?tool|tool (call )?outputs?\b.*\btext"
        ),
        ("text-tool-outputs",),
    ),
    (
        _pattern(
            r"\A(?!.*\bwithout\b).*"
            r"(not|un|n't)\s?-?(be )?(support|enable|available)\w*.{0,30}\b(tools?|function)\b|"
            r"\b(tools?|function) ?call\w*\b.{0,30}(not|un)\s?-?(be )?(support|enabled|available)|"
            r"variant \W?tool\b|"
            r"\brole\b.{0,40}(should|must|expected).{0,60}\bassistant\W*\Z"
        ),
        ("no-tool-messages",),
    ),
    (_pattern(r"\btools\b|toolconfig|function declarations?"), ("tools-of-history",)),
    (_pattern(r"jinja flag"), ("no-tool-messages",)),
    (
        _pattern(
            r"(role\W{1,3}|\b)tool\W{1,3}(role|messages?)?.{0,20}(not|un)|"
            r"(unsupported|unknown|invalid|unrecogni[sz]ed|unexpected) (message )?role\W+tool|"
            r"unknown variant \W?tool\b|"
            r"only.*\buser\b.*\bassistant\b|roles? must alternate"
        ),
        ("no-tool-messages",),
    ),
]

_FORMAT: Final = _pattern(
    r"response_?.?format|json_schema|json_object|json (mode|output)|"
    r"structured (output|generation)|text\.format|mime type|schema.*(support|available)|"
    r"guided|grammar|invalid format|\btype: input should be 'text'"
)
#: A mistake in the schema itself, or of the prompt: whoever wrote it has to see that.
_FORMAT_MISTAKE: Final = _pattern(r"invalid schema|word .?json|schema.*(is|are) (required|invalid)")
_FORMAT_RULES: Final = ("json-object-format", "json-schema-format", "format-in-words")

_MESSAGE_ORDER: Final = _pattern(
    r"\broles?\b|template|jinja|conversation|messages?\b.*(order|sequence|structure)"
)
#: What is tried where a refusal only says that it was about the order of the messages.
_ORDER_RULES: Final = (
    "single-system-message",
    "assistant-after-tool",
    "alternating-roles",
    "no-system-role",
)

#: The error code for encrypted reasoning that the model can no longer read.
_STALE_REASONING_CODE: Final = "invalid_encrypted_content"
#: Rules for one request: the next is tried without.
_NOT_REMEMBERED: Final = frozenset({"no-old-reasoning"})

_THOUGHTS: Final = _pattern(r"reasoning(_\w+)?|thinking")
_MISSING_THOUGHTS: Final = _pattern(
    r"reasoning_content\b.*(missing|required|must be (passed|provided|present|included|sent))|"
    r"missing.{0,20}reasoning_content|(must|should) include reasoning_content|"
    r"\bthinking\b.{0,40}must be passed back"
)
_SCHEMA_KEYWORD: Final = _pattern(
    r"unknown name \\?[\"'`]([^\"'`\\]+)\\?[\"'`] at .*(param|schema|function|tool|declaration)"
)

#: What a refusal of a keyword speaks of, and the keywords that a schema is as good without.
_OF_SCHEMAS: Final = _pattern(
    r"tool|function|param|schema|declaration|keyword|grammar|for STRING type"
)
_ONLY_SUPPORTED: Final = _pattern(r"\bonly\b.{0,60}\bsupported\b")
_DISPENSABLE_KEYWORDS: Final = (
    *("$schema", "$id", "$comment", "additionalProperties", "unevaluatedProperties"),
    *("patternProperties", "propertyNames", "pattern", "format", "default", "title", "examples"),
    *("minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("multipleOf", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
    *("nullable", "deprecated", "readOnly", "writeOnly", "contentEncoding", "contentMediaType"),
)

#: Fields that are the client's own choice: that the upstream refuses one is for the client to see.
_OF_THE_CLIENT: Final = frozenset(
    {
        *("temperature", "top_p", "max_tokens", "max_completion_tokens", "max_output_tokens"),
        *("frequency_penalty", "presence_penalty", "seed", "stop", "reasoning_effort"),
        *("reasoning", "logprobs", "top_logprobs"),
    }
)
#: Fields that antiphon adds by itself, or that an answer is as good without.
_DISPENSABLE: Final = frozenset({"stream_options", "parallel_tool_calls"})


def repair_request(
    request: bytes, rules: Rules, error: AntiphonError
) -> tuple[bytes, Rules] | None:
    """What to send in place of a refused request, and by which rules; None: nothing else.

    ``request`` is as it was before the ``rules``. The first candidate that changes it is taken.
    """
    if not _is_refusal(error):
        return None
    decoded = decode_request(request)
    sent = apply_rules(decoded, rules)
    message = f"{error.message} {error.param or ''}"
    by_type = [without_tools_of_type(one) for one in refused_tool_types(sent, message)]
    by_keyword = [without_schema_keyword(one) for one in _refused_keywords(sent, message)]
    for rule in (*by_type, *by_keyword, *candidate_rules(error, sent)):
        more = rules | {rule}
        fitted = apply_rules(decoded, more)
        if fitted != sent:
            return _encode(fitted), more
    return None


def _refused_keywords(request: dict[str, Any], message: str) -> Iterator[str]:
    """The keywords of schemas of tools that a refusal names."""
    is_unsupported = _UNSUPPORTED.search(message) or _ONLY_SUPPORTED.search(message)
    if not (request.get("tools") and is_unsupported and _OF_SCHEMAS.search(message)):
        return
    tools = _encode(request["tools"])
    for keyword in _DISPENSABLE_KEYWORDS:
        is_named = re.search(rf"(?<![\w$]){re.escape(keyword)}(?!\w)", message)
        if is_named and b'"%b":' % keyword.encode() in tools:
            yield keyword


def _is_refusal(error: AntiphonError) -> bool:
    """Whether an error can be about the form of the request; some servers answer 500 to that."""
    if error.code == TOOL_USE_FAILED:
        return False
    is_failure = type(error) is ModelError and error.code == ModelError.default_code
    return type(error) is InvalidRequestError or is_failure


def candidate_rules(error: AntiphonError, fields: Collection[str]) -> Iterator[str]:
    """The rules that a refusal calls for, most likely first; ``fields`` are the request's."""
    param = (error.param or "") if isinstance(error, InvalidRequestError) else ""
    message = f"{error.message} {param}"
    is_unsupported = _UNSUPPORTED.search(message) is not None
    if _MISSING_THOUGHTS.search(message):
        yield "required-thoughts"
    if error.code == _STALE_REASONING_CODE:
        yield "no-old-reasoning"
    if param.startswith("include") or any(
        sign in message for sign in (INCLUDE_ENCRYPTED_REASONING, "'include'", '"include"')
    ):
        yield "no-encrypted-reasoning"
    if is_unsupported:
        yield from _unsupported_field_rules(message, fields)
    if _FORMAT.search(message) and not _FORMAT_MISTAKE.search(message):
        yield from _FORMAT_RULES
    for words, rules in _RULES_BY_WORDS:
        if words.search(message):
            yield from rules
    if _MESSAGE_ORDER.search(message):
        yield from _ORDER_RULES
    if is_unsupported:
        # The name may be anything, and some servers give none.
        yield from ("no-provider-fields", "no-thoughts")


def _unsupported_field_rules(message: str, fields: Collection[str]) -> Iterator[str]:
    """Rules for something that the upstream does not know, by the name that it gives."""
    if "maxcompletiontokens" in message.replace("_", "").lower():
        yield "max-completion-tokens" if "max_tokens" in fields else "max-tokens"
    if keyword := _SCHEMA_KEYWORD.search(message):
        yield "no-strict" if keyword[1] == "strict" else without_schema_keyword(keyword[1])
    for name in sorted(fields, key=len, reverse=True):
        if _is_dispensable(name, fields) and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message):
            yield without_field(name)
    if "input" in fields and _UNKNOWN.search(message):
        # An endpoint that does not know the field does not do what it forbids.
        for name in ("store", "truncation"):
            if name in fields and name in message:
                yield without_field(name)
    if re.search(r"\bstrict\b", message, re.IGNORECASE):
        yield "no-strict"
    if _THOUGHTS.search(message):
        yield "no-thoughts"
    if any(name in message for name in EXTRA_FIELDS):
        yield "no-provider-fields"
    if re.search(r"\bname\b", message):
        yield "no-names"


def _is_dispensable(name: str, fields: Collection[str]) -> bool:
    # An endpoint of chat completions that does not know ``store`` stores nothing.
    if name in _DISPENSABLE or (name == "store" and "messages" in fields):
        return True
    return name not in RESERVED_FIELDS and name not in _OF_THE_CLIENT


#: How many models' rules one upstream remembers: names are the client's choice.
_MAX_MODELS: Final = 1000


class LearnedRules:
    """The rules of one upstream: those of its settings, and by model what it was found to need."""

    def __init__(self, upstream: str, quirks: Collection[str] = ()) -> None:
        self._upstream = upstream
        self._quirks = frozenset(quirks)
        self._learned: dict[str, Rules] = {}

    def of(self, model: str) -> Rules:
        """The rules for a request to a model."""
        return self._learned.get(model, self._quirks)

    def remember(self, model: str, rules: Rules) -> None:
        """Use the rules from now on: with them, the model has answered."""
        new = rules - _NOT_REMEMBERED - self.of(model)
        if not new:
            return
        if len(self._learned) >= _MAX_MODELS:
            self._learned.clear()
        self._learned[model] = self.of(model) | new
        log.warning(
            "the model %s at %s takes requests only with these quirks, which are used from now"
            " on: %s",
            model,
            self._upstream,
            ", ".join(sorted(new)),
        )
