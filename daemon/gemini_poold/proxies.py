"""Which proxy a request goes through. Nothing is sent here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from yarl import URL

DIRECT = "direct"  # as a `proxy`: none at all, whatever is configured


@lru_cache(maxsize=1024)
def parsed(url: str) -> URL:
    """A URL as it stands: nothing in it is quoted anew. Raises ValueError."""
    return URL(url, encoded=True)


class Proxies:
    """Which proxy a URL goes through: the account's, else the configured one, else the environment's. None for the
    machine's own metadata server."""

    def __init__(self, configured: str, environ: Mapping[str, str] | None = None) -> None:
        self._configured = URL(configured) if configured else None
        self._environment = _environment_proxies(environ)
        self._known: dict[tuple[str, str], URL | None] = {}

    def proxy_for(self, url: URL, account_proxy: str = "") -> URL | None:
        if account_proxy == DIRECT or _is_this_machines(url.host or ""):
            return None
        if account_proxy:
            return parsed(account_proxy)
        if self._configured is not None:
            return self._configured
        if not self._environment:
            return None
        place = (url.scheme, url.authority)
        if place not in self._known:
            self._known[place] = self._from_environment(url)
        return self._known[place]

    def _from_environment(self, url: URL) -> URL | None:
        proxy = self._environment.get(url.scheme) or self._environment.get("all")
        # An endpoint on this machine is never meant to go over the company's proxy.
        if not proxy or _is_loopback(url.host or ""):
            return None
        if proxy_bypass_environment(url.authority, dict(self._environment)):
            return None
        return URL(proxy if "://" in proxy else f"http://{proxy}")


def _environment_proxies(environ: Mapping[str, str] | None) -> dict[str, str]:
    """Proxies by scheme, "no" for the exceptions. With `environ` given: by the same rules as urllib's."""
    if environ is None:
        return getproxies_environment()
    upper = {
        name.lower()[:-6]: value
        for name, value in environ.items()
        if name.lower().endswith("_proxy") and value
    }
    lower = {name[:-6]: value for name, value in environ.items() if name.endswith("_proxy")}
    found = {**upper, **lower}
    return {scheme: value for scheme, value in found.items() if value}


def _is_this_machines(host: str) -> bool:
    """A metadata server answers for the machine that asks: over a proxy it would be the proxy's machine's identity."""
    return host.startswith("169.254.") or host in {"metadata.google.internal", "fd00:ec2::254"}


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost") or host.startswith("127.") or host == "::1"
