"""Context overflow: finds out whether an error's message means that the input is too long. Pure.

No two servers say it alike, and few send a code. What counts is that the input, or all tokens
together, are more than a limit; a limit of the output alone is another error.
"""

from __future__ import annotations

import re

import msgspec

#: How much of a message is read, in characters: what it means, it says at its beginning.
_MAX_MESSAGE_LENGTH = 2000
_MAX_COMBINED = 400
_CODES = re.compile(
    "context_length_exceeded|exceed_context_size|context_window_exceeded|tokens_limit_reached"
    "|max_prompt_tokens_exceeded|prompt_too_long|input_too_long|context_too_long",
    re.IGNORECASE,
)

_MORE = (
    r"(?:exceed\w*|over|above|beyond|(?:long|larg|great|bigg|high)er than|more than|less than"
    r"|too (?:long|large|big|many)|at most|up to|must be ?<=?|cannot|greater|overflows?|limit"
    r"|maximum|max\b|reduce|only|does(?: not|n't) fit|超|过长)"
)
#: What a message says that means too much input. Quotation marks are gone, case does not count.
_EXCEED = (
    r"(?:exceed\w*|over the|(?:more|great|long|larg)(?:er)? than|too (?:large|long)"
    r"|supports? (?:only |at most|up to)|limit (?:is|of))"
)
_TEXT = r"(?:prompts?|inputs?|messages?|conversation|history|text|chat)"
_INPUT = r"(?:prompts?|inputs?|messages|conversation(?: history)?|history|query)"
_SIGNS = [
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        # The context, by its names.
        rf"{_MORE}.{{0,80}}\bcontext[ _-]?(?:length|window|size|limit)",
        rf"\bcontext[ _-]?(?:length|window|size|limit).{{0,80}}{_MORE}",
        r"\bcontext (?:is |was )?(?:too long|too large|overflow\w*|exceeded|full)",
        r"max(?:imum)?[ _](?:num|model|seq\w*|input|prompt|message)[ _](?:len\w*|tokens?)",
        r"max(?:imum)? (?:allowed |supported )?(?:prompt|input|sequence) length",
        # The input, and that it is too long.
        r"\b(?:prompt|inputs?|messages|conversation|history)\b(?: \w+){0,3} too long",
        r"\b(?:prompt|input) (?:length |tokens? |token count )?(?:\W*[\d,]+\W*(?:tokens?\W*)?)?"
        r"(?:of [\d,]+ (?:tokens )?)?(?:exceed|is (?:long|larg|great)er than|超)",
        r"range of input length",
        r"\binputs must have less than",
        # Tokens, and that they are of the input or of all.
        r"(?<!logit_bias has )too many (?:input |prompt )?tokens",
        r"\bmax_tokens must be at least 1, got -\d",
        r"\bctx_len\b",
        rf"\b{_TEXT}\b(?: \w+){{0,4}} (?:is |are |was )?too (?:long|large|big)\b",
        r"\btoo long a (?:prompt|message|conversation)\b",
        r"(?:提示词?|消息|输入|对话|请求|文本).{0,6}(?:过长|太长|超长|超限)",
        r"上下文(?:长度|窗口)?(?:超限|超长|过长|溢出)",
        r"reached the maximum length for this conversation",
        r"\bprefill length exceeds",
        r"\b(?:input|prompt|message|total|model)s?[ _]tokens?(?: \w+){0,7} ?(?:exceed|must be|<=)",
        r"\binputs? tokens \+ max_new_tokens",
        r"your request exceed\w* (?:the )?(?:model )?token limit",
        r"exceeds? (?:the |this )?model(?:'s)? (?:maximum )?token limit",
        r"reduce the (?:length|size) of (?:the |your )?(?:messages|prompt|input)",
        r"\bexceeds? max(?:imum)? (?:length|message tokens)",
        r"max size: [\d,]+ tokens",
        r"\b(?:input|prompt)\b.{0,40}\btokens?\b.{0,20}\b(?:be |has to be )?(?:reduce|shorten)",
        rf"\b(?:prompt|input)s? (?:length|size) is [\d,]+.{{0,20}}{_EXCEED}",
        r"\b(?:max|at most|up to) [\d,]+ (?:input|prompt) tokens",
        r"max(?:imum)? number of tokens is [\d,]+.{0,20}\b(?:request|input|prompt)",
        rf"\btotal\b.{{0,20}}\btokens?\b.{{0,12}}\b{_EXCEED}",
        rf"\b(?:input|prompt|requests?|messages?|conversation|text)\b.{{0,40}}\btokens?\b"
        rf".{{0,40}}{_EXCEED}",
        rf"\btokens?\b.{{0,40}}\b(?:input|prompt|requests?|messages|conversation)\b"
        rf".{{0,40}}{_EXCEED}",
        rf"\b(?:input|prompt|messages|conversation)\b (?:is |are )?{_EXCEED}.{{0,40}}\btokens?\b",
        r"\bprompt of at most",
        r"\bmessage (?:\w+ ){0,3}too long",
        r"\bmax(?:imum)? tokens of [\d,]+ exceeded",
        rf"\b{_INPUT} (?:needs|takes|uses) [\d,]{{3,}}",
        r"\bcontext window (?:is|was) full",
        # What has to be shorter, of the input or of all.
        rf"\b(?:shorten\w*|shorter|reduc\w+|trim|truncate)\b.{{0,30}}\b{_INPUT}\b",
        rf"\b(?:{_INPUT}|number of).{{0,30}}\btokens?\b.{{0,20}}"
        r"\b(?:must|should|has to|have to|needs? to) (?:be |have )?(?:reduced|fewer|less|small)",
        rf"\b{_INPUT}\b.{{0,20}}\b(?:must|should|has to|have to|needs? to) (?:be |have )?"
        r"(?:shorter|shortened|fewer|less|smaller|reduced)\b.{0,20}(?:\btoken|$|:)",
        rf"\b{_INPUT} (?:is |are )?(?:too (?:big|large)|over the .{{0,8}}limit)",
        r"\b(?:more|greater|larger|longer|smaller) than (?:the |this )?"
        r"(?:models?|context|prompt)\b",
        r"\b(?:conversation|chat|thread|one)\b.{0,20}\bmaximum length|\bmax(?:imum)? context\b",
        r"\bmaximum tokens for.{0,40}\bprompt\b|\bnum_ctx\b|\bexceed\w* .{0,20}\bwindow\b",
        rf"\b{_INPUT}\b.{{0,40}}\b(?:too long|longer than)\b",
        r"\b(?:request|text|content|sequence)\b.{0,40}\b(?:too long|longer than)\b"
        r".{0,60}(?:\btokens?\b|\bmodel\b|\bcontext\b|[\d,]{4,} ?> ?[\d,]{4,})",
        # Sums, sizes and comparisons of tokens.
        r"\b(?:input|prompt)s?[ _]tokens?\b.{0,20}\+ ?max_\w*tokens",
        r"\b(?:needs?|request(?:ed|s)?|estimated|contains?|has)\b.{0,20}\b[\d,]+ ?tokens\b.{0,40}"
        r"\b(?:but|only|maximum|limit|more than|larger)\b",
        r"\b(?:estimated|prompt|input|total) token count\b.{0,40}"
        r"(?:over|larger|greater|more|exceed|>)",
        r"\b(?:sequence|input_ids|input|prompt) length\b.{0,40}(?:exceed|>|larger|but max)",
        r"\b(?:exceed\w*|over|reached)\b.{0,20}\b(?:token|context|model) limit\b",
        r"\b(?:token|context|model(?: context)?) limit (?:was |is )?(?:exceeded|reached)",
        r"\bmessage size [\d,]+ exceeds",
        # The context, as a place.
        r"\b(?:ran|run|running) out of context|not enough context|fit (?:into|in|within) the"
        r" context",
        r"\bkv cache is (?:full|not (?:large|big) enough)",
        rf"\bn_ctx\w* ?(?:=|is|of|:|\()? ?\d|{_MORE}.{{0,20}}\bn_ctx",
        # Other languages.
        r"zu lang|kontextl[äa]nge|trop long|longueur de contexte|demasiado larg"
        r"|longitud (?:m[áa]xima )?del? contexto|muito long|troppo lung|слишком длин"
        r"|контекст\w* окн|長すぎ|コンテキスト長|너무 [길긴]|컨텍스트 길이",
        r"(?:输入|輸入|上下文|提示词?|tokens?|内容).{0,20}(?:超过|超出|超過|过长|過長|太长)",
        r"(?:超过|超出|超過).{0,20}(?:上下文|输入|輸入|tokens?|长度|長度)",
    )
]
#: What means it in many combinations: a text or all of a request, its unit, and a limit of that.
_TOPIC = re.compile(
    rf"\b(?:{_TEXT}|requests?|requested|payload|sequence|prefill|models?|completion)\b"
    r"|\b(?:input|prompt)_\w+",
    re.IGNORECASE,
)
_UNIT = re.compile(r"\b(?:tokens?|contexts?|windows?|length|size|kv cache)\b", re.IGNORECASE)
_LIMIT_WORDS = re.compile(
    r"exceed|surpass|beyond|\b(?:over|above) (?:the |its )?(?:limit|maximum|max|cap)\b|overflow"
    r"|\b(?:long|larg|great|bigg|high|small)er than\b|\bmore than\b|\bno more\b|\bonly\b"
    r"|too (?:long|large|big|many|small)|at most|up to|\b(?:less|shorter|fewer) than"
    r"|(?:does not|doesn?t|cannot) (?:fit|be longer)|\bmax(?:imum|\b)|\blimit(?:s|ed)?\b"
    r"|insufficient|not enough|> ?\d{3}|<= ?\d{3}|\breduce\b|\bis [\d,]{4,} tokens but\b",
    re.IGNORECASE,
)
#: Limits of anything but the input and all tokens together, where words are combined freely.
_OTHER_TOPICS = re.compile(
    r"\b(?:image|images|picture|audio|video|file|files|tools?|functions?|names?|keys?|ids?"
    r"|metadata|schemas?|headers?|urls?|stop sequences?|characters|bytes|[MK]i?B|batch|quota|plan"
    r"|billing|credits?|account|rate|minute|seconds?|concurrent\w*|budget|budget_tokens|timeout"
    r"|timed out|logit_bias|top_\w+|temperature|truncate_\w+|min_tokens|number of messages"
    r"|too many messages|body|entity|queue|overloaded|lower maximum)\b",
    re.IGNORECASE,
)
_OUTPUT_WORDS = re.compile(
    r"\b(?:max_(?:completion_|output_|new_)?tokens|outputs?|completions?|generat\w+|responses?"
    r"|thinking|reasoning)\b",
    re.IGNORECASE,
)
_INPUT_WORDS = re.compile(
    r"\b(?:inputs?|prompts?|contexts?|total|messages?|conversation|history|combined|sum)\b"
    r"|\b(?:input|prompt)_\w+",
    re.IGNORECASE,
)

#: What is about the context, whatever else the message speaks of.
_SURE = re.compile(r"maximum (?:context|prompt) length (?:of [\w. -]+ )?is [\d,]+", re.IGNORECASE)
#: Limits of something else: of one field's text, of the output, of a rate.
_OTHER_LIMITS = re.compile(
    r"(?:string|array|object|name|key|id|value|list|schema|instructions?|description) (?:is )?"
    r"too (?:long|large|big)"
    r"|\b(?:description|name|schema|metadata|url|file|image|audio|video)\b (?:is )?"
    r"(?:exceed|longer than)"
    r"|\b(?:number of|too many) (?:\w+ )?(?:images|tools|files|blocks|parts|attachments)\b"
    r"|\b(?:audio|video)\b.{0,30}\btoo long|\b(?:timed out|took longer|time limit)\b"
    r"|\blower max(?:imum)?[ _]tokens"
    r"|\A(?!.*(?:input|prompt|context|total)).*"
    r"(?:\b(?:completion|output|generated) tokens\b"
    r"|\bmax_(?:completion_|output_|new_)?tokens (?:value|should|must|is too large))"
    r"|range of max_\w*tokens"
    r"|maximum tokens you requested|\bplease wait\b|\bthrottl"
    r"|每分钟|每日|每天|max_tokens ?参数"
    r"|truncate_prompt_tokens value|\binput should (?:be|have)\b"
    r"|\b(?:api key|your plan|open requests)\b"
    r"|\b(?:per|this) (?:min(?:ute)?|hour|day|week|month)\b|\b[TR]P[MD]\b"
    r"|\b(?:today|daily|monthly|quota|credits?|balance|billing|subscription)\b",
    re.IGNORECASE | re.DOTALL,
)

#: Larger numbers, and such as are further apart, are something else, such as codes and ids.
_MAX_RATIO = 8
_MAX_TOKENS = 20_000_000
_NUMBER = re.compile(r"(?<![\w.])\d[\d,]{2,}(?![\w.]*\w)")
_USED, _LIMIT, _OUTPUT = (rf"(?P<{name}>\d[\d,]*)" for name in ("used", "limit", "output"))
#: The numbers of tokens in a message, used and allowed.
_COUNTS = [
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        rf"maximum context length is {_LIMIT}.*?requested {_OUTPUT} output tokens and your prompt"
        rf" contains at least {_USED}",
        rf"maximum context length is {_LIMIT}.*?has {_USED} input tokens plus {_OUTPUT}",
        rf"length {_USED} \+ {_OUTPUT} is greater than \w+ {_LIMIT}",
        rf"prompt \({_USED} tokens\) is too long and exceeds limit of {_LIMIT}",
        rf"passed {_USED} input tokens and requested {_OUTPUT} output tokens.*?only {_LIMIT}",
        rf"maximum (?:context|prompt) length (?:is|of) {_LIMIT}.*?"
        rf"(?:requested|resulted in|request contains|request has) "
        rf"(?:about |a total of )?{_USED}",
        rf"maximum context length of {_LIMIT}.*?total of {_USED}",
        rf"(?:prompt|input)\D{{0,12}}too long:? {_USED}(?: tokens)?\D{{1,40}}{_LIMIT}",
        rf"context limit: {_USED} \+ {_OUTPUT} > {_LIMIT}",
        rf"\({_USED}(?: tokens)?\) (?:is longer than|exceeds?) (?:the )?[\w' ]{{3,40}} "
        rf"\({_LIMIT}",
        rf"prompt contains {_USED} tokens.*?model with {_LIMIT}",
        rf"token count \({_USED}\) exceeds[\w ]+\({_LIMIT}\)",
        rf"token count of {_USED} exceeds the limit of {_LIMIT}",
        rf"requested tokens \({_USED}\) exceed context window of {_LIMIT}",
        rf"length {_USED}\) is longer than the maximum model length of {_LIMIT}",
        rf"length {_USED} (?:exceeds the maximum length|is greater than \w+) {_LIMIT}",
        rf"limit of {_LIMIT} tokens.*?resulted in {_USED} tokens",
        rf"must be <= {_LIMIT}\. given: {_USED} inputs tokens and {_OUTPUT}",
        rf"must have less than {_LIMIT} tokens\. given: {_USED}",
        rf"prompt_tokens \({_USED}\) must be less than max_seq_len \({_LIMIT}\)",
        rf"cannot exceed {_LIMIT} - received {_USED}",
        rf"current length is {_USED} while limit is {_LIMIT}",
        rf"token limit: {_LIMIT} \(requested: {_USED}\)",
        rf"max input tokens: {_LIMIT}, request input token count: {_USED}",
    )
]


class ContextOverflow(msgspec.Struct, frozen=True):
    """An overflow, in tokens where the message has numbers: of the input, and what fits."""

    used: int | None = None
    limit: int | None = None


def find_context_overflow(message: str, *codes: str) -> ContextOverflow | None:
    """The overflow that an error means by its message or its codes; None: it is another error."""
    if any(map(_CODES.search, codes)):
        return _count(_without_marks(message))
    plain = _without_marks(message)
    if _SURE.search(plain):
        return _count(plain)
    if _CODES.search(plain):
        return _count(plain)
    if _OTHER_LIMITS.search(plain):
        return None
    is_overflow = any(sign.search(plain) for sign in _SIGNS) or _combines_signs(plain)
    return _count(plain) if is_overflow else None


def _combines_signs(message: str) -> bool:
    """Whether a message says by single words that the input, or all of it, is over a limit."""
    start = message[:_MAX_COMBINED]
    if not all(one.search(start) for one in (_TOPIC, _UNIT, _LIMIT_WORDS)):
        return False
    is_of_output = _OUTPUT_WORDS.search(start) and not _INPUT_WORDS.search(start)
    return not (is_of_output or _OTHER_TOPICS.search(start))


def _without_marks(message: str) -> str:
    return " ".join(re.sub(r"[`'\"*]", "", message[:_MAX_MESSAGE_LENGTH]).split())


def _count(message: str) -> ContextOverflow:
    for pattern in _COUNTS:
        found = pattern.search(message)
        if found is not None:
            groups = found.groupdict()
            used, limit, output = (
                int((groups.get(name) or "0").replace(",", ""))
                for name in ("used", "limit", "output")
            )
            return ContextOverflow(used, limit - output if output < limit else limit)
    found_numbers = {int(one.replace(",", "")) for one in _NUMBER.findall(message)}
    numbers = sorted(one for one in found_numbers if 1000 <= one <= _MAX_TOKENS)
    if len(numbers) == 2 and numbers[1] <= numbers[0] * _MAX_RATIO:
        # Which is which is clear by their sizes.
        return ContextOverflow(numbers[1], numbers[0])
    return ContextOverflow()
