"""Bridges to other libraries, one module each: none is imported unless asked for, and each needs its library alone.

`httpx`, `aiohttp`: over the gateway's Unix socket, without any key. `google_auth`: tokens for Google's own SDKs.
`genai`, `litellm`, `langchain`: what is ready to use.
"""

from __future__ import annotations

import os

from gemini_pool import paths
from gemini_pool.errors import PoolError

BASE_URL = "http://localhost"  # what stands in Host on the Unix socket; nothing is looked up


def gateway_socket(given: str | os.PathLike[str] | None = None) -> str:
    """The gateway's Unix socket: as given, else what the running daemon says, else the contract's place."""
    if given is not None:
        return os.fspath(given)
    from gemini_pool._sync import Pool

    try:
        with Pool(connect_s=0.0) as pool:
            return pool.info().gateway_socket or str(paths.places().gateway_socket)
    except PoolError:  # not running yet: whoever connects will tell
        return str(paths.places().gateway_socket)
