"""Settings: file < environment < flags, and a sentence for every mistake."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from antiphon.core.connection_limits import ConnectionLimits
from antiphon.errors import ConfigError
from antiphon.settings import (
    XAI_URL,
    Limits,
    ModelSettings,
    Secret,
    Settings,
    TenantSettings,
    load_settings,
)

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path / "XDG_CONFIG_HOME" / "antiphon"


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def load(
    cwd: Path, toml: str | None = None, env: dict[str, str] | None = None, **flags: str | int | None
) -> Settings:
    if toml is not None:
        (cwd / "antiphon.toml").write_text(toml)
        flags["config"] = "antiphon.toml"
    return load_settings(flags, env or {}, cwd)


def config_error(
    cwd: Path, toml: str | None = None, env: dict[str, str] | None = None, **flags: str | int | None
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(cwd, toml, env, **flags)
    assert "\n" not in caught.value.message
    assert KEY not in caught.value.message
    return caught.value.message


def test_defaults_are_local_and_need_nothing(cwd: Path, tmp_path: Path) -> None:
    settings = load(cwd)
    assert (settings.host, settings.port, settings.grpc_port) == ("127.0.0.1", 8080, None)
    assert settings.store == f"sqlite:{tmp_path}/XDG_DATA_HOME/antiphon/antiphon.db"
    assert settings.default_model() == "smollm2"
    assert settings.upstream is None
    assert settings.models == {"smollm2": ModelSettings(kind="llama")}


def test_flags_win_over_environment_over_file(cwd: Path) -> None:
    toml = 'port = 1\nhost = "::1"\ngrpc_port = 7\n'
    env = {"ANTIPHON_PORT": "2", "ANTIPHON_HOST": "localhost"}
    assert load(cwd, toml).port == 1
    assert load(cwd, toml, env).port == 2
    settings = load(cwd, toml, env, port=3)
    assert (settings.port, settings.host, settings.grpc_port) == (3, "localhost", 7)


def test_port_zero_is_a_port(cwd: Path) -> None:
    assert load(cwd, port=0).port == 0


def test_an_empty_variable_is_not_set(cwd: Path) -> None:
    assert load(cwd, env={"ANTIPHON_PORT": "", "XAI_API_KEY": " "}).default_model() == "smollm2"


def test_config_file_is_found_by_variable_and_in_the_users_folder(cwd: Path, home: Path) -> None:
    home.mkdir(parents=True)
    (home / "config.toml").write_text("port = 5")
    assert load(cwd).port == 5
    (cwd / "other.toml").write_text("port = 6")
    assert load(cwd, env={"ANTIPHON_CONFIG": "other.toml"}).port == 6
    assert load(cwd, "port = 7", {"ANTIPHON_CONFIG": "other.toml"}).port == 7


def test_relative_paths_resolve_from_their_source(cwd: Path, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "a.toml").write_text('store = "sqlite:x.db"')
    config = str(tmp_path / "conf" / "a.toml")
    assert load(cwd, config=config).store == f"sqlite:{tmp_path}/conf/x.db"
    assert load(cwd, config=config, store="sqlite:x.db").store == f"sqlite:{cwd}/x.db"
    assert load(cwd, store="sqlite:~/x.db").store == f"sqlite:{tmp_path}/HOME/x.db"
    assert load(cwd, store="memory:").store == "memory:"


def test_with_the_xai_key_grok_is_the_default(cwd: Path) -> None:
    settings = load(cwd, env={"XAI_API_KEY": KEY})
    assert settings.default_model() == "grok-4"
    assert settings.upstream == ModelSettings(
        kind="responses", has_chat_fallback=True, base_url=XAI_URL, api_key=Secret(KEY)
    )
    assert "smollm2" in settings.models


def test_the_kind_of_the_upstream_can_be_chosen(cwd: Path) -> None:
    env = {"XAI_API_KEY": KEY}
    for word in ("chat", "Chat", "chat_completions", "chat-completions"):
        (cwd / "c.toml").write_text(f"kind = '{word}'")
        for given in (
            load(cwd, env={**env, "ANTIPHON_KIND": word}),
            load(cwd, env=env, config="c.toml"),
        ):
            assert given.upstream == ModelSettings(
                kind="chat_completions", base_url=XAI_URL, api_key=Secret(KEY)
            )
    given = load(cwd, env={"ANTIPHON_KIND": "responses"}, base_url="http://127.0.0.1:9/v1")
    assert given.upstream == ModelSettings(kind="responses", base_url="http://127.0.0.1:9/v1")
    for wrong in ("llama", "gpt"):
        assert "ANTIPHON_KIND" in config_error(cwd, env={"ANTIPHON_KIND": wrong})
    (cwd / "c.toml").write_text("[models.a]\nkind = 'chat'\nbase_url = 'http://e.com'")
    assert load(cwd, config="c.toml").models["a"].kind == "chat_completions"


def test_dotenv_holds_keys_and_the_environment_wins(cwd: Path) -> None:
    (cwd / ".env").write_text(f"XAI_API_KEY='{KEY}'\nANTIPHON_PORT=9\n")
    settings = load(cwd)
    assert settings.default_model() == "grok-4"
    assert settings.port == 8080, "only keys are read from .env"
    upstream = load(cwd, env={"XAI_API_KEY": "other"}).upstream
    assert upstream is not None
    assert upstream.api_key == Secret("other")


def test_a_model_that_is_named_wins_over_grok(cwd: Path) -> None:
    env = {"XAI_API_KEY": KEY, "ANTIPHON_MODEL": "smollm2"}
    assert load(cwd, env=env).default_model() == "smollm2"
    assert load(cwd, env=env, model="grok-3").default_model() == "grok-3"


def test_an_upstream_without_a_model_has_no_default(cwd: Path) -> None:
    settings = load(cwd, base_url="http://127.0.0.1:9/v1/")
    assert settings.model is None
    assert settings.upstream == ModelSettings(
        kind="chat_completions", base_url="http://127.0.0.1:9/v1"
    )
    with pytest.raises(ConfigError, match="--model"):
        settings.default_model()


def test_keys_go_only_to_their_own_hosts(cwd: Path) -> None:
    env = {"XAI_API_KEY": KEY, "OPENAI_API_KEY": "o"}
    keys = {
        url: upstream.api_key
        for url in (
            "https://example.com/v1",
            "https://api.openai.com/v1",
            "https://api.x.ai/v1",
            "http://api.x.ai/v1",
            "https://api.x.ai.example.com/v1",
        )
        if (upstream := load(cwd, env=env, base_url=url).upstream)
    }
    assert list(keys.values()) == [None, Secret("o"), Secret(KEY), None, None]


def test_a_named_key_goes_to_the_base_url(cwd: Path) -> None:
    upstream = load(
        cwd, env={"MINE": KEY}, base_url="http://localhost:1/v1", api_key_env="MINE"
    ).upstream
    assert upstream is not None
    assert upstream.api_key is not None
    assert upstream.api_key.reveal() == KEY


def test_keys_are_never_shown(cwd: Path) -> None:
    settings = load(cwd, env={"XAI_API_KEY": KEY})
    for shown in (repr(settings), str(settings.upstream), f"{Secret(KEY)}", repr(Secret(KEY))):
        assert KEY not in shown
    with pytest.raises((TypeError, msgspec.MsgspecError)):
        msgspec.json.encode(settings)


def test_key_variables_are_not_read_without_resolve_keys(cwd: Path) -> None:
    (cwd / "c.toml").write_text('base_url = "https://e.com"\napi_key_env = "MISSING"')
    settings = load_settings({"config": "c.toml"}, {"XAI_API_KEY": KEY}, cwd, resolve_keys=False)
    assert settings.upstream is not None
    assert settings.upstream.api_key is None


def test_models_are_tables(cwd: Path) -> None:
    (cwd / "big.gguf").touch()
    settings = load(
        cwd,
        """
        model = "fast"
        [models.fast]
        base_url = "https://e.com/v1"
        api_key_env = "E_KEY"
        name = "fast-2026"
        context = 8000
        images = false
        [models.big]
        kind = "llama"
        path = "big.gguf"
        primer = false
        """,
        {"E_KEY": KEY},
    )
    assert settings.default_model() == "fast"
    assert settings.models["fast"] == ModelSettings(
        kind="chat_completions",
        base_url="https://e.com/v1",
        api_key=Secret(KEY),
        name="fast-2026",
        context=8000,
        images=False,
    )
    assert settings.models["big"] == ModelSettings(
        kind="llama", path=cwd / "big.gguf", primer=False
    )
    assert "smollm2" in settings.models


def test_an_upstream_uses_chat_completions_by_default(cwd: Path) -> None:
    settings = load(
        cwd,
        """
        [models.plain]
        base_url = "https://e.com/v1"
        [models.deep]
        kind = "responses"
        base_url = "https://e.com/v1"
        """,
    )
    assert settings.models["plain"].kind == "chat_completions"
    assert settings.models["deep"].kind == "responses"


def test_a_gguf_file_can_be_the_model(cwd: Path) -> None:
    (cwd / "sub").mkdir()
    (cwd / "sub" / "Some-1B.gguf").touch()
    settings = load(cwd, model="sub/Some-1B.gguf")
    assert settings.default_model() == "Some-1B"
    assert settings.models["Some-1B"].path == cwd / "sub" / "Some-1B.gguf"
    # A bare name may be one that was pulled before.
    assert load(cwd, model="pulled.gguf").default_model() == "pulled"


def test_a_gguf_file_does_not_take_a_configured_name(cwd: Path) -> None:
    (cwd / "smollm2.gguf").touch()
    settings = load(cwd, model="smollm2.gguf")
    assert settings.default_model() == "smollm2.gguf"
    assert settings.models["smollm2"].path is None


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("prot = 1", ["antiphon.toml", "prot"]),
        ("port = 'x'", ["antiphon.toml", "port", "int"]),
        ("port = 65536", ["antiphon.toml: port", "65535"]),
        ("port = -1", ["antiphon.toml: port"]),
        ("port 1", ["antiphon.toml", "not TOML"]),
        ("store = 'mysql://x'", ["antiphon.toml: store", "sqlite:PATH"]),
        ("host = ' '", ["antiphon.toml: host"]),
        ("models = 3", ["antiphon.toml", "models"]),
        ("[models.a]\nkind = 'gpt'", ["antiphon.toml", "kind"]),
        ("[models.a]\nkind = 'chat_completions'", ["[models.a]", "base_url"]),
        ("[models.a]\nkind = 'responses'", ["[models.a]", "'responses'", "base_url"]),
        ("[models.a]\nkind = 'llama'\nbase_url = 'http://e.com'", ["[models.a]", "base_url"]),
        ("[models.a]\nkind = 'llama'\napi_key_env = 'A'", ["[models.a]", "api_key_env"]),
        ("[models.a]\nkind = 'scripted'\npath = 'a.gguf'", ["[models.a]", "path"]),
        ("[models.a]\nbase_url = 'http://e.com'\nprimer = true", ["[models.a]", "primer"]),
        ("[models.a]\npath = 'nowhere.gguf'", ["[models.a]", "nowhere.gguf"]),
        ("[models.a]\ncontext = 0", ["[models.a]", "context"]),
        ("[models.a]\nbase_url = 'http://e.com'\napi_key_env = 'A_KEY'", ["[models.a]", "A_KEY"]),
        (f"api_key = '{KEY}'", ["antiphon.toml", "api_key_env"]),
        ("retention_days = 0", ["antiphon.toml: retention_days", "forever"]),
        ("retention_days = nan", ["antiphon.toml: retention_days"]),
        ("retention_days = 'never'", ["antiphon.toml: retention_days", "never"]),
        ("[tenants.a]\nretention_days = -1", ["[tenants.a] retention_days"]),
        ("[tenants.a]\nrequests = 1", ["antiphon.toml", "requests", "tenants"]),
        ("[server]\nmax_headers = 1", ["antiphon.toml", "server.max_headers"]),
        ("[server]\nheader_timeout = 0", ["antiphon.toml", "server.header_timeout"]),
        ("[server]\nbody_timeout = 'long'", ["antiphon.toml", "server.body_timeout"]),
        ("[server]\nmax_conections = 5", ["antiphon.toml", "max_conections"]),
        ("[limits]\nrequests_per_minute = 0", ["antiphon.toml", "limits.requests_per_minute"]),
        ("[limits]\nconcurrent_turns = 'many'", ["antiphon.toml", "limits.concurrent_turns"]),
        ("[limits]\nrequests_per_minute = 1.5", ["antiphon.toml", "limits"]),
        ("log_level = 'loud'", ["antiphon.toml: log_level", "loud", "warning"]),
        ("log_format = 'xml'", ["antiphon.toml: log_format", "plain, json"]),
        ("cors_origins = 'https://a.example'", ["antiphon.toml", "cors_origins"]),
        ("cors_origins = ['https://a.example/']", ["cors_origins", "https://app.example.com"]),
        ("cors_origins = ['a.example']", ["antiphon.toml: cors_origins", "a.example"]),
        ("cors_origins = ['null']", ["cors_origins"]),
        ("cors_origins = ['https://*.a.example']", ["cors_origins", "*.a.example"]),
        ("cors_origins = ['https://u:p@a.example']", ["cors_origins"]),
        ("cors_origins = ['https://a.example:x']", ["cors_origins"]),
        (f"[models.a]\napi_key = '{KEY}'", ["antiphon.toml", "api_key_env"]),
        ("[tenants.'a b']\nretention_days = 3", ["antiphon.toml", "[tenants.a b]"]),
    ],
)
def test_error_in_the_file_is_named(cwd: Path, toml: str, words: list[str]) -> None:
    message = config_error(cwd, toml)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"port": 70000}, ["--port"]),
        ({"grpc_port": -5}, ["--grpc-port"]),
        ({"store": "sqlite:"}, ["--store"]),
        ({"store": "/tmp/x.db"}, ["--store", "sqlite:PATH"]),
        ({"store": "sqlite::memory:"}, ["--store", "memory:"]),
        ({"store": "sqlite:~nobody-here/x.db"}, ["--store", "home folder"]),
        ({"config": "~nobody-here/x.toml"}, ["--config", "home folder"]),
        ({"base_url": "example.com/v1"}, ["--base-url", "https://"]),
        ({"base_url": "ftp://example.com"}, ["--base-url"]),
        ({"base_url": "http://[1/v1"}, ["--base-url"]),
        ({"base_url": f"https://u:{KEY}@e.com/v1"}, ["--base-url", "--api-key-env"]),
        ({"base_url": "https://e.com/v1?k=1"}, ["--base-url", "?"]),
        ({"base_url": "https://e.com", "api_key_env": "NO_SUCH"}, ["--api-key-env", "NO_SUCH"]),
        ({"base_url": "https://e.com", "api_key_env": KEY}, ["--api-key-env"]),
        ({"api_key_env": "SOME"}, ["--api-key-env", "base URL"]),
        ({"model": " "}, ["--model"]),
        ({"modle": "grok-4"}, ["'modle'", "model"]),
        ({"models": 1}, ["'models'"]),
        ({"model": "no/such.gguf"}, ["--model", "no/such.gguf"]),
        ({"config": "missing.toml"}, ["missing.toml", "No such file"]),
    ],
)
def test_a_wrong_flag_is_named(cwd: Path, flags: dict[str, str | int], words: list[str]) -> None:
    message = config_error(cwd, None, None, **flags)
    assert all(word in message for word in words), message


def test_a_wrong_variable_is_named(cwd: Path) -> None:
    assert "ANTIPHON_PORT" in config_error(cwd, env={"ANTIPHON_PORT": "http"})
    assert "ANTIPHON_PORT" in config_error(cwd, env={"ANTIPHON_PORT": "٣"})
    assert "XAI_API_KEY" in config_error(cwd, env={"XAI_API_KEY": f"{KEY}\nX-Header: 1"})


def test_files_of_windows_editors_are_read(cwd: Path) -> None:
    (cwd / "antiphon.toml").write_bytes(b"\xef\xbb\xbfport = 1234\r\nmodel = 'grok-4'\r\n")
    (cwd / ".env").write_bytes(b"\xef\xbb\xbfXAI_API_KEY=xai-1\r\n")
    settings = load(cwd, config="antiphon.toml")
    assert settings.port == 1234
    assert settings.upstream is not None
    assert settings.upstream.api_key == Secret("xai-1")
    (cwd / "antiphon.toml").write_text("port = 1234", "utf-16")
    assert config_error(cwd, config="antiphon.toml").endswith("it is not UTF-8")


def test_quotes_and_space_around_a_variable_are_no_part_of_it(cwd: Path) -> None:
    env = {
        "ANTIPHON_PORT": "1234\r",
        "ANTIPHON_BASE_URL": " https://e.com/v1/ ",
        "ANTIPHON_MODEL": "'m'",
        "ANTIPHON_HOST": '" "',
        "ANTIPHON_FUN_PROMPT": 'It\'s "fun"',
        "ANTIPHON_API_KEY_ENV": "E_KEY",
        "E_KEY": '"e-1"\r',
    }
    settings = load(cwd, env=env)
    assert (settings.port, settings.model, settings.host) == (1234, "m", "127.0.0.1")
    assert settings.upstream is not None
    assert settings.upstream.base_url == "https://e.com/v1"
    assert settings.upstream.api_key == Secret("e-1")
    assert settings.fun_prompt == 'It\'s "fun"'


def test_an_ipv6_host_may_be_in_brackets(cwd: Path) -> None:
    assert load(cwd, host="[::1]").host == "::1"
    assert "--host" in config_error(cwd, host="[]")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a database of users")
def test_a_user_without_a_home_is_asked_for_a_store(cwd: Path) -> None:
    program = """
        import os, pwd
        from pathlib import Path
        from antiphon.configured_models import build_model_registry
        from antiphon.errors import ConfigError
        from antiphon.settings import load_settings
        os.chdir("/")
        # A number that no user has, as in many containers.
        pwd.getpwuid = {}.__getitem__
        for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
            os.environ.pop(name, None)
        settings = load_settings({"store": "memory:"}, {}, Path("/"))
        assert build_model_registry(settings).default == "smollm2"
        try:
            load_settings({}, {}, Path("/"))
        except ConfigError as error:
            print(error.message)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert "--store" in done.stdout


def test_multi_user_server_settings(cwd: Path) -> None:
    settings = load(
        cwd,
        """
        retention_days = 90
        log_level = "info"
        log_format = "json"
        cors_origins = ["https://App.example.com", "http://localhost:3000", "https://b.example:443"]
        [limits]
        requests_per_minute = 600
        concurrent_turns = 20
        [tenants.acme]
        requests_per_minute = "unlimited"
        retention_days = "forever"
        [tenants."me@home.example"]
        concurrent_turns = 2
        [server]
        header_timeout = 5
        max_connections = 50
        """,
    )
    assert settings.connection_limits == ConnectionLimits(header_timeout=5.0, max_connections=50)
    assert (settings.log_level, settings.log_format) == ("info", "json")
    assert settings.cors_origins == (
        "https://app.example.com",
        "http://localhost:3000",
        "https://b.example",
    )
    assert settings.tenant("acme") == TenantSettings(Limits(None, 20), None)
    assert settings.tenant("me@home.example") == TenantSettings(Limits(600, 2), 90)
    assert settings.tenant("another") == TenantSettings(Limits(600, 20), 90)
    assert settings.tenant("") == TenantSettings(Limits(600, 20), 90)


def test_defaults_are_no_limits_and_thirty_days_of_retention(cwd: Path) -> None:
    settings = load(cwd)
    assert settings.tenant("anyone") == TenantSettings(Limits(None, None), 30)
    assert settings.connection_limits == ConnectionLimits()
    assert (settings.log_level, settings.log_format) == ("warning", "plain")
    assert settings.cors_origins == ()


def test_multi_user_server_settings_from_variables(cwd: Path) -> None:
    env = {
        "ANTIPHON_RETENTION_DAYS": "0.5",
        "ANTIPHON_LOG_LEVEL": "INFO",
        "ANTIPHON_CORS_ORIGINS": "https://a.example, *",
    }
    settings = load(cwd, "retention_days = 7\n[tenants.a]\nretention_days = 9", env)
    assert settings.retention_days == 0.5
    assert settings.tenant("a").retention_days == 9
    assert settings.log_level == "info"
    assert settings.cors_origins == ("https://a.example", "*")
    assert load(cwd, env={"ANTIPHON_RETENTION_DAYS": "forever"}).retention_days is None
    assert load(cwd, None, env, log_level="debug").log_level == "debug"


@pytest.mark.parametrize(
    ("text", "env", "stores"),
    [
        (None, {}, False),
        ("store_chat_completions = true", {}, True),
        (None, {"ANTIPHON_STORE_CHAT_COMPLETIONS": "True"}, True),
        ("store_chat_completions = true", {"ANTIPHON_STORE_CHAT_COMPLETIONS": "0"}, False),
    ],
)
def test_chat_completions_may_all_be_stored(
    cwd: Path, text: str | None, env: dict[str, str], stores: bool
) -> None:
    assert load(cwd, text, env).store_chat_completions is stores


def test_no_model_writes_titles_unless_one_is_named(cwd: Path) -> None:
    assert load(cwd, None).title_model is None
    assert load(cwd, 'title_model = "small"').title_model == "small"
    assert load(cwd, None, {"ANTIPHON_TITLE_MODEL": "other"}).title_model == "other"


def test_boolean_setting_is_true_or_false(cwd: Path) -> None:
    message = config_error(cwd, env={"ANTIPHON_STORE_CHAT_COMPLETIONS": "sure"})
    assert "ANTIPHON_STORE_CHAT_COMPLETIONS" in message
    assert "sure" in message
