"""MCP servers in the settings: valid tables, and errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.core.secrets import Secret
from antiphon.errors import ConfigError
from antiphon.settings import Settings, load_settings

KEY = "Bearer wiki-key-0123456789"


def load(folder: Path, text: str, **environ: str) -> Settings:
    path = folder / "config.toml"
    path.write_text(text)
    return load_settings({"config": str(path), "store": "memory:"}, environ, folder)


def test_server_by_command_and_by_url(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        mcp_allowed_urls = ["mcp.example.com"]
        [mcp.files]
        command = ["npx", "server"]
        env = ["TOKEN"]
        allowed_tools = ["read"]
        require_approval = ["write"]
        timeout = 5
        [mcp.wiki]
        url = "https://mcp.example.com/mcp/"
        headers_env = { Authorization = "WIKI" }
        require_approval = "never"
        """,
        TOKEN="t0ken",
        WIKI=KEY,
    )
    files, wiki = settings.mcp
    assert files == McpServerConfig(
        label="files",
        command=("npx", "server"),
        env={"TOKEN": Secret("t0ken")},
        folder=tmp_path,
        allowed_tools=("read",),
        require_approval=("write",),
        timeout=5,
    )
    assert wiki == McpServerConfig(
        label="wiki",
        url=Secret("https://mcp.example.com/mcp/"),
        headers={"Authorization": Secret(KEY)},
        folder=tmp_path,
        require_approval="never",
    )
    assert settings.mcp_allowed_urls == ("mcp.example.com",)
    assert KEY not in repr(settings)


def test_the_allowlist_is_empty_by_default(tmp_path: Path) -> None:
    settings = load(tmp_path, "[mcp.files]\ncommand = ['x']")
    assert settings.mcp_allowed_urls == ()
    (server,) = settings.mcp
    assert (server.allowed_tools, server.require_approval, server.timeout) == (None, None, 60.0)


def test_allowed_urls_from_an_environment_variable(tmp_path: Path) -> None:
    settings = load(tmp_path, "", ANTIPHON_MCP_ALLOWED_URLS="a.example, *.b.example")
    assert settings.mcp_allowed_urls == ("a.example", "*.b.example")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("", "either a command or a url"),
        ("command = ['x']\nurl = 'https://a.example'", "either a command or a url"),
        ("command = []", "either a command or a url"),
        ("command = ['x']\nheaders_env = { A = 'B' }", "no headers_env"),
        ("url = 'https://a.example'\nenv = ['A']", "no env"),
        ("url = 'ftp://a.example'", "http:// or https://"),
        ("url = 'https://[a'", "is not a URL"),
        ("url = 'https://a.example/?key=hunter2hunter2'", "in headers_env"),
        ("url = 'https://me:hunter2hunter2@a.example/'", "in headers_env"),
        ("url = 'https://a.example'\nheaders_env = { A = 'hunter2-hunter2' }", "is not set"),
        ("command = ['x']\ntimeout = 0", "timeout"),
        ("command = ['x']\nrequire_approval = 'sometimes'", "require_approval"),
        ("command = ['x']\nrequire = 1", "require"),
    ],
)
def test_invalid_server_table_is_named(tmp_path: Path, table: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"[mcp.files]\n{table}")
    assert expected in str(caught.value)
    assert "files" in str(caught.value) or "mcp" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_too_long_server_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 to 40 characters"):
        load(tmp_path, f"[mcp.{'x' * 41}]\ncommand = ['x']")


def test_key_variables_are_not_read_without_resolve_keys(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[mcp.wiki]\nurl = 'https://a.example'\nheaders_env = { A = 'NOT_SET' }")
    settings = load_settings(
        {"config": str(path), "store": "memory:"}, {}, tmp_path, resolve_keys=False
    )
    assert settings.mcp[0].headers == {}
