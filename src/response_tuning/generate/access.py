"""How servers are reached: their addresses, the key, and the proxy."""

import os
from typing import NamedTuple
from urllib.parse import urlsplit

from response_tuning.configs import EngineConfig
from response_tuning.errors import ConfigError, EngineError

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
NO_KEY = "none"
"""What a server on this machine gets as a key if the user has none."""
KEY_CHARACTERS = 8
"""Shorter keys are no secrets: for servers that need none, users give words such as EMPTY."""


class Access(NamedTuple):
    """How a server is reached, besides its address."""

    api_key: str
    """``none`` for a server on this machine that needs no key."""
    proxy: str | None


def access(config: EngineConfig) -> Access:
    """Return the key and the proxy for the server of ``config``.

    Raises:
        ConfigError: the address or the model's name is missing or invalid.
        EngineError: the environment variable with the key is not set.
    """
    if config.model is None or config.base_url is None:
        raise ConfigError(
            "engine 'openai': name the model and the server, such as --model NAME "
            "--base-url http://127.0.0.1:8000/v1"
        )
    if config.template is not None:
        raise ConfigError(
            f"engine 'openai': the server renders the prompt, so template '{config.template}' "
            "has no effect; save it in the served tokenizer"
        )
    # A key is required unless the server is on this machine: others answer 401 to every request.
    hosts = [_host(url) for url in (config.base_url, *config.replicas)]
    host = next((one for one in hosts if one not in _LOOPBACK), hosts[0])
    schemes = {urlsplit(url).scheme for url in (config.base_url, *config.replicas)}
    if len(schemes) > 1:  # one connection's settings serve all
        raise ConfigError("engine 'openai': all servers are reached by http, or all by https")
    api_key = os.environ.get(config.api_key_env, "").strip()
    if not (api_key.isascii() and api_key.isprintable()):
        raise EngineError(
            f"engine 'openai': environment variable {config.api_key_env} does not hold a key"
        )
    if not api_key and host not in _LOOPBACK:
        raise EngineError(
            f"engine 'openai': environment variable {config.api_key_env} is not set; set it to the "
            f"key for {host}, or name another variable with --api-key-env"
        )
    return Access(api_key or NO_KEY, _proxy(config.base_url))


def _host(url: str) -> str:
    try:
        address = urlsplit(url)
        _ = address.port  # reading it validates it
        if address.hostname and address.scheme in ("http", "https"):
            return address.hostname
    except ValueError:
        pass
    # The message does not repeat the address: it may hold a password.
    raise ConfigError(
        "engine 'openai': --base-url must be an http(s) address such as http://127.0.0.1:8000/v1"
    )


def _proxy(url: str) -> str | None:
    from response_tuning.generate.connection import proxy_for

    proxy = proxy_for(url)
    if proxy is not None and urlsplit(proxy).scheme not in ("http", "https"):
        raise EngineError(
            "engine 'openai': the environment's proxy for https is not an http proxy; unset it, "
            "or put the server's host into NO_PROXY"
        )
    return proxy
