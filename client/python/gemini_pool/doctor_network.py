"""Doctor's look at the way to Google: proxy, certificates, names, the token endpoint, and the clock.

One request without credentials to each endpoint that the configuration names; what it answers does not matter, that
it answers does, and the Date it says.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import socket
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from gemini_pool.doctor import Finding, Patient

PATIENCE_S = 5.0
SKEW_S = 60.0
_DEFAULTS = {
    "oauth_token": "https://oauth2.googleapis.com/token",
    "code_assist": "https://cloudcode-pa.googleapis.com",
    "developer_api": "https://generativelanguage.googleapis.com",
}
_PROXY_WORDS = "set [network] proxy in config.toml right, or unset HTTPS_PROXY"


def certificates(p: Patient) -> Iterator[Finding]:
    """`[network] ca_file`, which is read besides the system's own."""
    given = p.table("network").get("ca_file", "")
    if not isinstance(given, str) or not given:
        return
    mend = "set [network] ca_file in config.toml to the corporate root's PEM file"
    try:
        ssl.create_default_context().load_verify_locations(Path(given).expanduser())
    except OSError as error:  # ssl.SSLError is one
        yield Finding("certificates", "error", f"[network] ca_file {given}: {error}", mend)
    else:
        yield Finding("certificates", "ok", given)


def proxy(p: Patient) -> Iterator[Finding]:
    """A proxy that is named has to accept connections."""
    url = _proxy(p)
    if not url:
        return
    parts = urllib.parse.urlsplit(url if "//" in url else f"//{url}")
    host = parts.hostname or ""
    try:
        socket.create_connection((host, parts.port or 80), timeout=PATIENCE_S).close()
    except (OSError, ValueError) as error:
        text = f"the proxy {host}:{parts.port or 80} does not answer: {error}"
        yield Finding("proxy", "error", text, _PROXY_WORDS)
    else:
        yield Finding("proxy", "ok", f"{host}:{parts.port or 80}")


def _proxy(p: Patient) -> str:
    given = p.table("network").get("proxy", "")
    if isinstance(given, str) and given:
        return given
    return p.environ.get("HTTPS_PROXY") or p.environ.get("https_proxy") or ""


def endpoints(p: Patient) -> Iterator[Finding]:
    """Names, connections, certificates; then the clock by what they say."""
    if _proxy(p) and any(each.severity == "error" for each in proxy(p)):
        return  # everything behind a dead proxy is dead
    skews = []
    for name, default in _DEFAULTS.items():
        url = p.table("endpoints").get(name, default)
        if not isinstance(url, str) or not url:
            continue
        try:
            said = _date(p, url)
        except _Trouble as trouble:
            yield Finding("network", "error", f"{name} ({url}): {trouble}", trouble.mend)
            continue
        yield Finding("network", "ok", name)
        if said is not None:
            skews.append(time.time() - said)
    if not skews:
        return
    skew_s = min(skews, key=abs)
    if abs(skew_s) > SKEW_S:
        way = "ahead" if skew_s > 0 else "behind"
        text = f"this clock is {abs(skew_s) / 60:.0f} min {way} of Google's: tokens are judged by it"
        yield Finding("clock", "error", text, "sudo timedatectl set-ntp true", runs=True)
    else:
        yield Finding("clock", "ok", f"{abs(skew_s):.0f} s apart from Google's")


class _Trouble(Exception):
    def __init__(self, text: str, mend: str) -> None:
        super().__init__(text)
        self.mend = mend


def _date(p: Patient, url: str) -> float | None:
    """The Date of the endpoint's answer, Unix seconds."""
    parts = urllib.parse.urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port, via = parts.port or (443 if secure else 80), _proxy(p)
    connection: http.client.HTTPConnection
    target = urllib.parse.urlsplit(via if "//" in via else f"//{via}") if via and secure else None
    to, at = (target.hostname or "", target.port or 80) if target else (host, port)
    try:
        if secure:
            context = ssl.create_default_context()
            if given := p.table("network").get("ca_file"):
                with contextlib.suppress(OSError):
                    context.load_verify_locations(Path(str(given)).expanduser())
            connection = http.client.HTTPSConnection(to, at, timeout=PATIENCE_S, context=context)
        else:
            connection = http.client.HTTPConnection(to, at, timeout=PATIENCE_S)
        if target:
            connection.set_tunnel(host, port)
        with contextlib.closing(connection):
            connection.request("GET", "/", headers={"User-Agent": "gemini-pool-doctor"})
            answer = connection.getresponse()
            answer.read(1)
            said = email.utils.parsedate_to_datetime(answer.headers.get("Date") or "")
            return said.timestamp()
    except socket.gaierror:
        raise _Trouble(f"no address for {to}", "look at DNS: getent hosts " + to) from None
    except ssl.SSLCertVerificationError as error:
        text = f"its certificate is not trusted: {error.verify_message}"
        raise _Trouble(
            text, "set [network] ca_file in config.toml to your network's root certificate"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        mend = "look at the network" if url in _DEFAULTS.values() else "set [endpoints] in config.toml right"
        raise _Trouble(f"it does not answer: {error}", mend) from None
    except (TypeError, ValueError):
        return None  # no Date: it answered, all the same


CHECKS = [certificates, proxy, endpoints]
