"""Managing accounts from a program: both faces say the same to the daemon, and read the same from it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.client.serving import serving

from gemini_pool import AsyncPool, Pool, signing_in, wire

VERDICT = wire.AccountVerdict("k", "developer-api", True, "ready", "", "", "", "", "", "", None, [])
ROW = wire.VerifyRow(VERDICT, "models.list", 0.1)
IMPORTED = wire.ImportResult([], [])
LOGIN = wire.LoginParams("work", client_secrets={"installed": {}})
ADD = wire.AccountAddParams("k", "developer-api", secret_text="fake-key-k")
ANSWERS: dict[str, Any] = {
    "login": wire.LoginStarted("http://127.0.0.1/", "l", 1, "http://127.0.0.1:1/", 0.0, "own"),
    "login_finish": wire.LoginResult("work", True, "", "own", "file", VERDICT),
    "add": ROW,
    "remove": wire.AccountRemoveResult("k", True, "", []),
    "enable": VERDICT,
    "disable": VERDICT,
    "verify": wire.VerifyResult([ROW]),
    "import_logins": IMPORTED,
    "export_opencode": wire.ExportResult(["k"], "auth.json", []),
    "export_archive": wire.ArchiveResult("YWdl", ["k"], []),
    "import_archive": IMPORTED,
}
# A method with what it is called with, and what the daemon's side must get of it.
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any], str, Any]] = [
    ("login", (LOGIN,), {}, "login", LOGIN),
    ("login_finish", ("l", "code"), {}, "login_finish", wire.LoginFinishParams("l", "code")),
    ("add_account", (ADD,), {}, "add", ADD),
    ("remove_account", ("k",), {"revoke": True}, "remove", wire.AccountRemoveParams("k", revoke=True)),
    ("enable", ("k",), {}, "enable", wire.AccountParams("k")),
    ("disable", ("k",), {}, "disable", wire.AccountParams("k")),
    ("verify", ("k", "l"), {}, "verify", wire.VerifyParams(["k", "l"])),
    ("import_logins", (wire.ImportParams("adc"),), {}, "import_logins", wire.ImportParams("adc")),
    (
        "export_opencode",
        (wire.ExportOpencodeParams(["k"]),),
        {},
        "export_opencode",
        wire.ExportOpencodeParams(["k"]),
    ),
    ("export_archive", (wire.ArchiveParams("p"),), {}, "export_archive", wire.ArchiveParams("p")),
    ("import_archive", (wire.UnarchiveParams("a", "p"),), {}, "import_archive", wire.UnarchiveParams("a", "p")),
]  # fmt: skip


class Managing:
    """Notes what it was asked, and answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        async def answer(params: Any) -> Any:
            self.asked.append((name, params))
            return ANSWERS[name]

        return answer


@pytest.fixture
def server(tmp_path: Any) -> Any:
    with serving(tmp_path) as s:
        s.managing = Managing()
        s.rpc.services.managing = lambda: s.managing
        yield s


@pytest.mark.parametrize(("method", "args", "named", "work", "params"), CALLS, ids=[c[0] for c in CALLS])
def test_both_faces(
    server: Any, method: str, args: tuple[Any, ...], named: dict[str, Any], work: str, params: Any
) -> None:
    """What a method is given reaches the work as it is, and its answer comes back whole; likewise with asyncio."""

    async def ask() -> Any:
        async with AsyncPool(server.path) as pool:
            return await getattr(pool, method)(*args, **named)

    with Pool(server.path) as pool:
        assert getattr(pool, method)(*args, **named) == ANSWERS[work]
    assert asyncio.run(ask()) == ANSWERS[work]
    sent = [(name, msgspec.to_builtins(got)) for name, got in server.managing.asked]
    assert sent == [(work, msgspec.to_builtins(params))] * 2


def test_clear_cooldown(server: Any) -> None:
    """The count comes back; nothing was cooling."""
    with Pool(server.path) as pool:
        assert pool.clear_cooldown("key-a") == wire.ClearCooldownResult(0, revived=False)


@pytest.mark.parametrize(
    ("environ", "platform", "seen"),
    [
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({}, "linux", False),
        ({}, "darwin", True),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22"}, "linux", False),
        ({"SSH_TTY": "/dev/pts/1"}, "darwin", False),
    ],
)
def test_where_a_browser_would_be_seen(environ: dict[str, str], platform: str, seen: bool) -> None:
    """A browser is opened where its user sits, never at the far end of an SSH connection."""
    assert signing_in.has_browser(environ, platform) is seen
