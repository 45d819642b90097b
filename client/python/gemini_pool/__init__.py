"""Client of the gemini-pool daemon.

    from gemini_pool import Pool

    with Pool() as pool:
        print(pool.generate("gemini-3-flash", "Hello!"))

`Pool` blocks, `AsyncPool` is its asyncio twin; both raise `PoolError`. The types of what they give are in
`gemini_pool.wire`. Importing this package imports neither face: each comes with its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemini_pool._aio import AsyncPool as AsyncPool
    from gemini_pool._sync import Pool as Pool
    from gemini_pool.errors import Cancelled as Cancelled
    from gemini_pool.errors import ConnectionLost as ConnectionLost
    from gemini_pool.errors import NotRunning as NotRunning
    from gemini_pool.errors import PoolError as PoolError
    from gemini_pool.errors import ProtocolError as ProtocolError

__version__ = "0.1.0"

_HOMES = {
    "AsyncPool": "gemini_pool._aio",
    "Cancelled": "gemini_pool.errors",
    "ConnectionLost": "gemini_pool.errors",
    "NotRunning": "gemini_pool.errors",
    "Pool": "gemini_pool._sync",
    "PoolError": "gemini_pool.errors",
    "ProtocolError": "gemini_pool.errors",
}
__all__ = ["AsyncPool", "Cancelled", "ConnectionLost", "NotRunning", "Pool", "PoolError", "ProtocolError"]


def __getattr__(name: str) -> object:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
