"""What a person sets: one frozen ``Settings`` from file < environment < flags.

The file is TOML: ``--config``, else ``ANTIPHON_CONFIG``, else ``config.toml`` in the
user's configuration folder if there is one. Paths in it are relative to the file.

    model = "fast"                         # the default model
    store = "sqlite:chats.db"
    [models.fast]
    kind = "chat_completions"
    base_url = "https://api.example.com/v1"
    api_key_env = "EXAMPLE_API_KEY"        # the variable that holds the key

Each setting of the server and the chat is also a variable: ``ANTIPHON_HOST``,
``ANTIPHON_PORT``, and so on. Keys are read from the environment or from ``.env`` in the
working directory, which is read for nothing else; a key itself is never a setting.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

import dotenv
import msgspec
import platformdirs

from antiphon.errors import ConfigError

ModelKind: TypeAlias = Literal["chat_completions", "llama", "scripted"]

#: The embedded model's name: reachable always, the default when nothing else is set.
EMBEDDED = "smollm2"
XAI_URL = "https://api.x.ai/v1"
XAI_MODEL = "grok-4"

#: Where a key is looked for when nobody says: never sent to any other host.
_USUAL_KEYS = {"api.x.ai": "XAI_API_KEY", "api.openai.com": "OPENAI_API_KEY"}
_GGUF = ".gguf"

#: What can be said of a model of each kind.
_TAKES: dict[ModelKind, set[str]] = {
    "chat_completions": {"kind", "base_url", "api_key_env", "name", "context", "images", "price"},
    "llama": {"kind", "path", "context", "primer"},
    "scripted": {"kind"},
}


class Secret:
    """A key. Printing, formatting or logging it shows nothing of it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a million tokens cost, in any one currency. ``cached`` None: as much as others."""

    input: Annotated[float, msgspec.Meta(ge=0)]
    output: Annotated[float, msgspec.Meta(ge=0)]
    cached: Annotated[float, msgspec.Meta(ge=0)] | None = None


class _ModelTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: ModelKind | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    name: str | None = None
    path: str | None = None
    context: int | None = None
    images: bool | None = None
    primer: bool | None = None
    price: Price | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: str | None = None
    port: int | None = None
    grpc_port: int | None = None
    store: str | None = None
    base_url: str | None = None
    model: str | None = None
    api_key_env: str | None = None
    models: dict[str, _ModelTable] = {}


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One model, or an upstream that has many.

    ``name`` is what the upstream calls it (None: as here), ``path`` a GGUF file (None:
    the embedded weights); ``context`` is in tokens.
    None means: the model's own default.
    """

    kind: ModelKind
    base_url: str | None = None
    api_key: Secret | None = None
    name: str | None = None
    path: Path | None = None
    context: int | None = None
    images: bool | None = None
    primer: bool | None = None
    price: Price | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set, checked and resolved.

    ``store`` is ``sqlite:`` and an absolute path, or ``memory:``. ``model`` is the
    default model; None: whoever asks has to name one. ``upstream`` gets every name
    that is not in ``models``. ``grpc_port`` is kept for later and opens nothing.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = None
    store: str
    model: str | None = EMBEDDED
    models: dict[str, ModelSettings] = {}
    upstream: ModelSettings | None = None

    def default_model(self) -> str:
        """The default model's name; ``ConfigError`` if none was chosen."""
        if self.model is None:
            raise ConfigError(
                "an upstream is given but no model: name one with --model or ANTIPHON_MODEL"
            )
        return self.model


def load_settings(
    flags: Mapping[str, str | int | None] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    *,
    keys: bool = True,
) -> Settings:
    """Settings from the TOML file, the environment and ``flags``, each over the one before.

    ``flags`` are named like the fields of the file, plus ``config``; None is not given.
    With ``keys`` False no key is looked up: for work that calls no model. Raises
    ``ConfigError`` naming the file, variable or flag that has to be mended.
    """
    cwd = cwd or Path.cwd()
    return _Loader(flags or {}, os.environ if environ is None else environ, cwd, keys).load()


class _Value(msgspec.Struct, frozen=True):
    """A setting's value, what to call its source in a sentence, and where paths begin."""

    value: Any
    source: str
    folder: Path


class _Loader:
    def __init__(
        self,
        flags: Mapping[str, str | int | None],
        environ: Mapping[str, str],
        cwd: Path,
        keys: bool,
    ) -> None:
        self._flags = flags
        self._environ = environ
        self._cwd = cwd
        self._keys = keys
        self._dotenv = _read_dotenv(cwd / ".env") if keys else {}
        self._path, self._file = self._read_file()

    def load(self) -> Settings:
        store, port = self._find("store"), self._port("port")
        models = {
            name: self._model(name, table)
            for name, table in {EMBEDDED: _ModelTable(kind="llama"), **self._file.models}.items()
        }
        upstream = self._upstream()
        model = self._default_model(models, upstream)
        return Settings(
            host=self._host(),
            port=8080 if port is None else port,
            grpc_port=self._port("grpc_port"),
            store=_store(store) if store else f"sqlite:{data_folder() / 'antiphon.db'}",
            model=model,
            models=models,
            upstream=upstream,
        )

    def _read_file(self) -> tuple[Path, _File]:
        given = self._flags.get("config") or self._environ.get("ANTIPHON_CONFIG")
        if given:
            path = (self._cwd / Path(str(given)).expanduser()).absolute()
        else:
            path = platformdirs.user_config_path("antiphon", appauthor=False) / "config.toml"
            if not path.is_file():
                return path, _File()
        try:
            raw = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {_reason(error)}") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: is not TOML: {error}") from error
        return path, _decode(path, raw)

    def _find(self, name: str) -> _Value | None:
        """A top-level setting from the strongest source that has it."""
        flag = self._flags.get(name)
        if flag is not None:
            return _Value(flag, "--" + name.replace("_", "-"), self._cwd)
        variable = "ANTIPHON_" + name.upper()
        if self._environ.get(variable):
            return _Value(self._environ[variable], variable, self._cwd)
        value = getattr(self._file, name)
        if value is not None:
            return _Value(value, f"{self._path}: {name}", self._path.parent)
        return None

    def _host(self) -> str:
        found = self._find("host")
        if found and not str(found.value).strip():
            raise ConfigError(f"{found.source}: the host is empty")
        return str(found.value).strip() if found else "127.0.0.1"

    def _port(self, name: str) -> int | None:
        found = self._find(name)
        if found is None:
            return None
        text = str(found.value)
        if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= 65535):
            raise ConfigError(f"{found.source}: {text!r} is not a port from 0 to 65535")
        return int(text)

    def _upstream(self) -> ModelSettings | None:
        """The catch-all upstream: the one given, else xAI's if its key is there."""
        url, variable = self._find("base_url"), self._find("api_key_env")
        if url:
            base_url = _base_url(str(url.value), url.source)
            key = self._key(variable) if variable else self._usual_key(base_url)
            return ModelSettings(kind="chat_completions", base_url=base_url, api_key=key)
        if variable:
            raise ConfigError(f"{variable.source}: names the key of a base URL, and none is given")
        if xai := self._usual_key(XAI_URL):
            return ModelSettings(kind="chat_completions", base_url=XAI_URL, api_key=xai)
        return None

    def _default_model(
        self, models: dict[str, ModelSettings], upstream: ModelSettings | None
    ) -> str | None:
        """The default model's name. A path to a GGUF file is added to ``models``."""
        found = self._find("model")
        if found is None:
            if upstream is None:
                return EMBEDDED
            return None if self._find("base_url") else XAI_MODEL
        name = str(found.value)
        if not name.strip():
            raise ConfigError(f"{found.source}: the model's name is empty")
        if name in models or not name.lower().endswith(_GGUF):
            return name
        path = _path(found, name)
        if path.is_file():
            name = path.name if path.stem in models else path.stem
            models.setdefault(name, ModelSettings(kind="llama", path=path))
            return name
        if path.parent != found.folder:
            raise ConfigError(f"{found.source}: there is no file {path}")
        return path.stem  # a pulled model, perhaps: that is how those are called

    def _model(self, name: str, table: _ModelTable) -> ModelSettings:
        source = f"{self._path}: [models.{name}]"
        at = _Value(None, source, self._path.parent)
        kind = table.kind or ("chat_completions" if table.base_url else "llama")
        for field in table.__struct_fields__:
            if getattr(table, field) is not None and field not in _TAKES[kind]:
                raise ConfigError(f"{source}: a model of kind {kind!r} takes no {field}")
        if kind == "chat_completions" and table.base_url is None:
            raise ConfigError(f"{source}: a model of kind {kind!r} needs a base_url")
        if table.context is not None and table.context < 1:
            raise ConfigError(f"{source}: context is a number of tokens, at least 1")
        path = _path(at, table.path) if table.path is not None else None
        if path is not None and not path.is_file():
            raise ConfigError(f"{source}: there is no file {path}")
        base_url = _base_url(table.base_url, source) if table.base_url is not None else None
        key = None
        if table.api_key_env is not None:
            key = self._key(_Value(table.api_key_env, source, at.folder))
        elif base_url:
            key = self._usual_key(base_url)
        return ModelSettings(
            kind=kind,
            base_url=base_url,
            api_key=key,
            name=table.name,
            path=path,
            context=table.context,
            images=table.images,
            primer=table.primer,
            price=table.price,
        )

    def _key(self, variable: _Value) -> Secret | None:
        name = str(variable.value)
        if not self._keys:
            return None
        if secret := self._secret(name):
            return secret
        # A key given in place of its variable's name must not come back in a sentence.
        shown = name if name.isidentifier() and len(name) <= 40 else "the variable it names"
        raise ConfigError(
            f"{variable.source}: {shown} is not set, neither in the environment nor in .env"
        )

    def _usual_key(self, base_url: str) -> Secret | None:
        parts = urlsplit(base_url)
        name = _USUAL_KEYS.get(parts.hostname or "") if parts.scheme == "https" else None
        return self._secret(name) if name and self._keys else None

    def _secret(self, name: str) -> Secret | None:
        value = (self._environ.get(name) or self._dotenv.get(name) or "").strip()
        if not value:
            return None
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(f"{name}: holds characters that no key has")
        return Secret(value)


def data_folder() -> Path:
    """Where antiphon keeps its database and models unless told otherwise."""
    return platformdirs.user_data_path("antiphon", appauthor=False)


def _read_dotenv(path: Path) -> dict[str, str | None]:
    if not path.is_file():
        return {}
    try:
        return dict(dotenv.dotenv_values(path, interpolate=False))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {_reason(error)}") from error


def _decode(path: Path, raw: dict[str, Any]) -> _File:
    for table in (raw, *(_tables(raw.get("models")))):
        if "api_key" in table:
            raise ConfigError(
                f"{path}: keys do not belong in this file: put it in an environment variable"
                " and name that with api_key_env"
            )
    try:
        return msgspec.convert(raw, _File)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        where = where.rstrip("`").lstrip(".").replace("[...]", ".*") or "top level"
        raise ConfigError(f"{path}: {what} ({where})") from error


def _tables(value: object) -> list[dict[str, Any]]:
    tables = value.values() if isinstance(value, dict) else ()
    return [table for table in tables if isinstance(table, dict)]


def _path(at: _Value, text: str) -> Path:
    """An absolute path; a relative one begins where its setting was found."""
    return Path(os.path.normpath(at.folder / Path(text).expanduser()))


def _store(found: _Value) -> str:
    text = str(found.value)
    if text == "memory:":
        return text
    scheme, colon, path = text.partition(":")
    if scheme != "sqlite" or not colon or not path:
        raise ConfigError(f"{found.source}: the store is sqlite:PATH or memory:, not {text!r}")
    return f"sqlite:{_path(found, path)}"


def _base_url(text: str, source: str) -> str:
    """The URL without its last slash. A sentence about it never repeats a password."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{source}: the base URL is not a URL") from error
    if "@" in parts.netloc:
        raise ConfigError(
            f"{source}: no user or password in the base URL: put the key in a variable and"
            " name that with --api-key-env"
        )
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigError(f"{source}: the base URL has to begin with http:// or https://")
    if parts.query or parts.fragment:
        raise ConfigError(f"{source}: the base URL takes nothing after ? or #")
    return text.rstrip("/")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
