"""httpx (or its fork httpx2): the gateway as a transport, and the pool's tokens as an Auth.

client = httpx.Client(base_url=BASE_URL, transport=transport())          # to the gateway, over its Unix socket
client = httpx.Client(auth=PoolAuth(Pool(), backend="code-assist"))      # to Google itself, with the pool's token
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Generator
from typing import Any

from gemini_pool._aio import AsyncPool
from gemini_pool._sync import Pool
from gemini_pool.adapters import BASE_URL, gateway_socket

try:
    import httpx
except ImportError:
    import httpx2 as httpx

__all__ = ["BASE_URL", "PoolAuth", "async_transport", "transport"]

_FRESH_S = 300.0  # after a 401: a token that lives this long is not the one that was just refused for its age


def transport(socket: str | os.PathLike[str] | None = None, **options: Any) -> httpx.HTTPTransport:
    """For `httpx.Client(base_url=BASE_URL, transport=…)`. `options` are those of httpx.HTTPTransport."""
    return httpx.HTTPTransport(uds=gateway_socket(socket), **options)


def async_transport(socket: str | os.PathLike[str] | None = None, **options: Any) -> httpx.AsyncHTTPTransport:
    """For `httpx.AsyncClient(base_url=BASE_URL, transport=…)`."""
    return httpx.AsyncHTTPTransport(uds=gateway_socket(socket), **options)


class PoolAuth(httpx.Auth):
    """A token of the pool on every request, chosen as by `Pool.token`; once a new one after a 401.

    Takes a `Pool` for httpx.Client and an `AsyncPool` for httpx.AsyncClient. API keys go as `x-goog-api-key`. Send it to
    Google only: whoever gets the request gets the token.
    """

    def __init__(self, pool: Pool | AsyncPool, account: str = "", **choice: Any) -> None:
        self._pool = pool
        self._account = account
        self._choice = choice

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        pool = self._pool
        if not isinstance(pool, Pool):
            raise TypeError("httpx.Client needs PoolAuth(Pool()); AsyncPool is for httpx.AsyncClient")
        _sign(request, pool.token(self._account, **self._choice))
        response = yield request
        if response.status_code == 401:
            _sign(request, pool.token(self._account, **{**self._choice, "min_validity_s": _FRESH_S}))
            yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        pool = self._pool
        if not isinstance(pool, AsyncPool):
            raise TypeError("httpx.AsyncClient needs PoolAuth(AsyncPool()); Pool is for httpx.Client")
        _sign(request, await pool.token(self._account, **self._choice))
        response = yield request
        if response.status_code == 401:
            _sign(request, await pool.token(self._account, **{**self._choice, "min_validity_s": _FRESH_S}))
            yield request


def _sign(request: httpx.Request, token: Any) -> None:
    if token.token_type == "api-key":
        request.headers["x-goog-api-key"] = token.token
    else:
        request.headers["Authorization"] = f"{token.token_type} {token.token}"
