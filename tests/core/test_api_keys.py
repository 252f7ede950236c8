"""API keys: their format, and the hash that is stored."""

from __future__ import annotations

import hashlib
import re

import pytest

from antiphon.core.api_keys import hash_api_key, is_tenant_name, new_api_key, new_api_key_id


def test_api_key_is_a_prefix_and_256_random_bits() -> None:
    keys = {new_api_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(re.fullmatch(r"ap_[a-z2-7]{52}", key) for key in keys)
    # Every position except the last, which has one bit, takes every value.
    for position in range(3, 54):
        assert len({key[position] for key in keys}) == 32


def test_api_key_hash_is_sha256() -> None:
    key = new_api_key()
    assert hash_api_key(key.encode()) == hashlib.sha256(key.encode()).digest()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"ap_",
        b"ap_" + b"a" * 51,
        b"ap_" + b"a" * 53,
        b"ap_" + b"a" * 52 + b"\n",
        b" ap_" + b"a" * 52,
        b"AP_" + b"a" * 52,
        b"ap_" + b"A" * 52,
        b"ap_" + b"1" * 52,
        b"sk-" + b"a" * 52,
        b"ap_" + b"\xff" * 52,
        b"x" * 100_000,
    ],
)
def test_malformed_api_key_has_no_hash(text: bytes) -> None:
    assert hash_api_key(text) is None


def test_api_key_id_is_random() -> None:
    assert re.fullmatch(r"key_[0-9a-f]{16}", new_api_key_id())
    assert new_api_key_id() != new_api_key_id()


@pytest.mark.parametrize("name", ["a", "acme", "Acme-2", "a.example", "me@a.example", "9" * 64])
def test_valid_tenant_names(name: str) -> None:
    assert is_tenant_name(name)


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "-a", ".", "a\n", "a/b", "ä", "a" * 65, 'a"b', "@a"]
)
def test_invalid_tenant_names(name: str) -> None:
    assert not is_tenant_name(name)
