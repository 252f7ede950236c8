"""Roles and system messages as the chat templates of the common families take them."""

from __future__ import annotations

import pytest

from antiphon.models.llama.chat_template import (
    PromptMessage,
    SystemRole,
    fit_roles,
    load_warning,
    system_role_of,
)

#: Where each family's template looks at system messages and at the order of roles.
TEMPLATES: dict[str, tuple[str, SystemRole]] = {
    "chatml": (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
        "message['content'] + '<|im_end|>\n'}}{% endfor %}",
        "any",
    ),
    "two-roles": (
        "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }}{% elif m.role == "
        "'assistant' %}ASSISTANT: {{ m.content }}{% endif %}{% endfor %}",
        "none",
    ),
    "smollm2": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role']}}{% endfor %}",
        "any",
    ),
    "llama-3": (
        "{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}"
        "{% else %}{{ raise_exception('Cannot put tools in the first user message when there\\'s "
        "no first user message!') }}{% endif %}",
        "first",
    ),
    "gemma-2": (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for message in messages %}{{ raise_exception('Conversation roles must "
        "alternate user/assistant/user/assistant/...') }}{% endfor %}",
        "none",
    ),
    "gemma-3": (
        "{%- if messages[0]['role'] == 'system' -%}{%- set first_user_prefix = "
        "messages[0]['content'] -%}{%- endif -%}{{ raise_exception('Conversation roles must "
        "alternate user/assistant/user/assistant/...') }}",
        "first",
    ),
    "mistral-0.1": (
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') "
        "}}{{ raise_exception('Only user and assistant roles are supported!') }}",
        "none",
    ),
    "mistral-0.3": (
        "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] "
        "%}{%- endif %}{{ raise_exception('After the optional system message, conversation roles "
        "must alternate user/assistant/user/assistant/...') }}{{ raise_exception('Only user and "
        "assistant roles are supported, with the exception of an initial optional system message!')"
        " }}",
        "first",
    ),
    "phi-3": (
        "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n'}}"
        "{% elif message['role'] == 'user' %}{{'<|user|>\n'}}{% endif %}{% endfor %}",
        "any",
    ),
    "qwen-2.5": (
        "{%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] }}{%- endif %}"
        "{%- for message in messages %}{%- if (message.role == 'user') or (message.role == "
        "'system' and not loop.first) %}{%- endif %}{%- endfor %}",
        "any",
    ),
    "qwen-3.5": (
        "{%- if message.role == 'system' %}{%- if not loop.first %}{{- raise_exception('System "
        "message must be at the beginning.') }}{%- endif %}{%- endif %}",
        "first",
    ),
    "refusing": ("{{ raise_exception('This model does not support a system prompt') }}", "none"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_says_what_it_takes(name: str) -> None:
    template, expected = TEMPLATES[name]
    assert system_role_of(template) == expected


def test_without_a_template_every_role_has_its_place() -> None:
    assert system_role_of(None) == "any"


def fitted(system_role: SystemRole, *lines: tuple[str, str]) -> list[tuple[str, str]]:
    given = [PromptMessage(role, text) for role, text in lines]
    before = [(one.role, one.content) for one in given]
    result = [(one.role, one.content) for one in fit_roles(given, system_role)]
    assert [(one.role, one.content) for one in given] == before
    # Not a word is lost.
    for _, text in lines:
        assert any(text in content for _, content in result)
    return result


S, T, U, A, V = (
    ("system", "Be brief."),
    ("system", "It is May."),
    ("user", "Hi."),
    ("assistant", "Hello!"),
    ("user", "Well?"),
)


def test_any_system_messages_stay_where_they_are() -> None:
    assert fitted("any", S, T, U, A, S, V) == [S, T, U, A, S, V]


def test_one_system_message_is_first_and_others_go_to_the_person() -> None:
    assert fitted("first", S, U, A, V) == [S, U, A, V]
    assert fitted("first", S, T, U) == [("system", "Be brief.\n\nIt is May."), U]
    assert fitted("first", S, U, A, T, V) == [S, U, A, ("user", "It is May.\n\nWell?")]
    assert fitted("first", S, U, T) == [S, ("user", "Hi.\n\nIt is May.")]
    assert fitted("first", U, A, T) == [U, A, ("user", "It is May.")]


def test_without_a_system_role_its_words_go_to_the_person() -> None:
    assert fitted("none", S, U, A, V) == [("user", "Be brief.\n\nHi."), A, V]
    assert fitted("none", S, T, U) == [("user", "Be brief.\n\nIt is May.\n\nHi.")]
    assert fitted("none", U, A, S, V) == [U, A, ("user", "Be brief.\n\nWell?")]


def test_roles_alternate_and_begin_with_the_person() -> None:
    hello = ("user", "Hello.")
    assert fitted("none", A, V) == [hello, A, V]
    assert fitted("first", S, A, V) == [S, hello, A, V]
    # Two answers in a row are left where a message without text was.
    assert fitted("first", U, A, A, V) == [U, ("assistant", "Hello!\n\nHello!"), V]
    assert fitted("none", S) == [("user", "Be brief.")]
    assert fitted("first", S) == [("user", "Be brief.")]
    assert fitted("first") == []


@pytest.mark.parametrize(
    ("template", "names", "file_name", "words"),
    [
        (None, (), "m.gguf", "has no chat template"),
        (None, ("Llama 3 Instruct",), "m.gguf", "has no chat template"),
        ("{{ x }}", ("Qwen2.5 0.5B Base",), "m.gguf", "is a base model"),
        ("{{ x }}", (), "gemma-3-1b-pt-Q4_0.gguf", "is a base model"),
        ("{{ x }}", (), "SmolLM2-135M_base.gguf", "is a base model"),
        ("{{ x }}", ("Qwen2.5 0.5B Instruct", "Instruct"), "m.gguf", ""),
        ("{{ x }}", ("Base", "chat"), "m.gguf", ""),
        ("{{ x }}", (), "gemma-2-2b-it-Q4_0.gguf", ""),
        ("{{ x }}", ("Database helper",), "m.gguf", ""),
        ("{{ x }}", ("Optimus",), "adept.gguf", ""),
    ],
)
def test_a_model_that_does_not_chat_is_named(
    template: str | None, names: tuple[str, ...], file_name: str, words: str
) -> None:
    warning = load_warning(template, names, file_name)
    assert warning.startswith(words)
    assert bool(warning) is bool(words)
