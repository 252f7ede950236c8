"""Settings: one frozen ``Settings`` from file < environment < flags.

No settings library is used: their errors do not name the file, variable or flag at fault, and
quote the value, which may be a key.

The file is TOML: ``--config``, else ``ANTIPHON_CONFIG``, else ``config.toml`` in the
user's configuration folder if there is one. Paths in it are relative to the file.

    model = "fast"                         # the default model
    store = "sqlite:chats.db"
    [models.fast]
    kind = "chat"                          # or "responses", which sends reasoning back, or
                                           # "xai-grpc", whose base_url is a host: "api.x.ai"
    base_url = "https://api.example.com/v1"
    api_key_env = "EXAMPLE_API_KEY"        # the variable that holds the key
    headers = { "X-Title" = "my app" }     # headers_env: the variables that hold their values
    extra = { top_k = 20 }                 # fields of every request
    timeout = 120                          # the longest silence, in seconds
    quirks = ["single-system-message"]     # see ``models.openai.request_rules``
    fallback = ["local"]                   # who answers where this one cannot

A server for many users has besides those:

    retention_days = 90                    # or "forever"; default: 30
    cors_origins = ["https://app.example.com"]
    store_chat_completions = true          # unless a request says otherwise
    title_model = "local"                  # writes the titles of chats; default: first words
    log_level = "info"                     # a line for each request
    grpc_port = 8081                       # default: HTTP's + 1; 0: none
    workers = 4                            # processes on this machine, behind one port
    node_url = "http://10.0.0.5:8080"      # where other nodes of the store reach this one
    drain_seconds = 30                     # that running turns get after a stop signal
    tls_cert = "cert.pem"                  # and tls_key: for HTTP and gRPC
    [limits]                               # for each key; default: none
    requests_per_minute = 600
    concurrent_turns = 20
    [server]                               # see ``core.connection_limits``
    max_connections = 10000
    [tenants.acme]                         # overrides for one tenant
    requests_per_minute = "unlimited"
    retention_days = 365

MCP servers, ``[mcp.NAME]``, are described in ``settings.toml_file``.

Each setting outside of tables is also a variable: ``ANTIPHON_HOST``, ``ANTIPHON_PORT``,
and so on (``ANTIPHON_CORS_ORIGINS`` with commas in between). Keys are read from the
environment or from ``.env`` in the working directory, which is read for nothing else; a
key itself is never a setting.
"""

from __future__ import annotations

from antiphon.core.secrets import Secret
from antiphon.settings.load import XAI_MODEL, XAI_URL, data_folder, load_settings, store_name
from antiphon.settings.values import (
    EMBEDDED,
    FUN_PROMPT,
    Limits,
    LogFormat,
    LogLevel,
    ModelKind,
    ModelSettings,
    Price,
    Settings,
    TenantSettings,
    Tls,
)

__all__ = [
    "EMBEDDED",
    "FUN_PROMPT",
    "XAI_MODEL",
    "XAI_URL",
    "Limits",
    "LogFormat",
    "LogLevel",
    "ModelKind",
    "ModelSettings",
    "Price",
    "Secret",
    "Settings",
    "TenantSettings",
    "Tls",
    "data_folder",
    "load_settings",
    "store_name",
]
