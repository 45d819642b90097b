"""Editing the files of a running daemon: quick, safe, and nobody else is disturbed."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_pool import Pool, wire
from gemini_poold.fake import FakeGoogle, World

PROMPT = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
PROMISE_S = 1.0  # the contract: an edit takes effect within a second of the save


@pytest.fixture
def fake() -> Iterator[FakeGoogle]:
    world = World()
    for name in ("a", "b", "c"):
        world.add_api_key(name)
    with fake_google(world) as google:
        yield google


@pytest.fixture
def daemon(tmp_path: Path, fake: FakeGoogle) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path, fake=fake, accounts=api_key_account("a")) as process:
        yield process


def in_place(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def replaced(path: Path, text: str) -> None:
    """As vim, Emacs and most others save: another file takes the name."""
    new = path.with_name(path.name + "~")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def removed_and_made(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text, encoding="utf-8")


def reloads(pool: Pool, save: Callable[[], None]) -> wire.Event:
    """Save, and return the notice of the reload that follows within the promised second."""
    with pool.events("reload") as events:
        guard = threading.Timer(PROMISE_S, events.close)
        save()
        guard.start()
        try:
            for event in events:
                return event
        finally:
            guard.cancel()
    raise AssertionError("no reload within a second of the save")


def ids(pool: Pool) -> list[str]:
    return [account.id for account in pool.accounts()]


@pytest.mark.parametrize("save", [in_place, replaced, removed_and_made])
def test_add_edit_remove(daemon: DaemonProcess, save: Callable[[Path, str], None]) -> None:
    """Adding, editing and removing an account takes effect within a second, however the editor saves, every time."""
    with daemon.pool() as pool:
        both = api_key_account("a") + api_key_account("b")
        reloads(pool, lambda: save(daemon.accounts_file, both))
        assert ids(pool) == ["a", "b"]
        assert pool.generate("gemini-2.5-flash", PROMPT, account="b")

        reloads(
            pool, lambda: save(daemon.accounts_file, api_key_account("a", priority=7) + api_key_account("b"))
        )
        assert [account.priority for account in pool.accounts()] == [7, 0]

        reloads(pool, lambda: save(daemon.accounts_file, api_key_account("b")))
        assert ids(pool) == ["b"]
        assert pool.generate("gemini-2.5-flash", PROMPT)


def test_a_broken_edit_keeps_the_old_pool_and_names_the_line(daemon: DaemonProcess) -> None:
    """A file that does not parse or validate changes nothing; status names file, line and what to do; mending heals."""
    good = daemon.accounts_file.read_text(encoding="utf-8")
    with daemon.pool() as pool:
        for bad, line, words in (
            (good + "\n[[account]\n", 6, "TOML"),
            (good + 'colour = "blue"\n', 5, "colour"),
            (good + good, 6, "twice"),
        ):
            event = reloads(pool, lambda text=bad: replaced(daemon.accounts_file, text))
            assert event.level == "warning"
            (error,) = pool.status().config_errors
            assert error.file == str(daemon.accounts_file)
            assert error.line == line, error
            assert words.lower() in (error.message + error.hint).lower(), error
            assert ids(pool) == ["a"]
            assert pool.generate("gemini-2.5-flash", PROMPT)
        reloads(pool, lambda: replaced(daemon.accounts_file, good + "# mended\n"))
        assert not pool.status().config_errors


def test_a_broken_file_at_start_serves_the_last_good_pool(daemon: DaemonProcess) -> None:
    """The stored last good accounts serve when the file is broken at the next start, and the error is shown."""
    with daemon.pool() as pool:
        assert pool.reload().errors == []
    daemon.stop()
    daemon.accounts_file.write_text("this is [not toml", encoding="utf-8")
    daemon.start()
    with daemon.pool() as pool:
        assert ids(pool) == ["a"]
        assert pool.generate("gemini-2.5-flash", PROMPT)
        assert pool.status().config_errors[0].line == 1


def test_reload_answers_when_it_is_done(daemon: DaemonProcess) -> None:
    """daemon/reload says what it changed, and the change is in force when it answers."""
    replaced(daemon.accounts_file, api_key_account("b") + api_key_account("c"))
    with daemon.pool() as pool:
        result = pool.reload()
        told = set(result.added) | set(result.removed)
        assert ids(pool) == ["b", "c"]
        assert told in ({"a", "b", "c"}, set())  # the watcher may have been first


def test_settings_are_reloaded_or_say_that_they_need_a_restart(daemon: DaemonProcess) -> None:
    """Selection settings apply at once; a listening address is told to need a restart; a bad key changes nothing."""
    text = daemon.config_file.read_text(encoding="utf-8")
    with daemon.pool() as pool:
        reloads(pool, lambda: replaced(daemon.config_file, text + '[selection]\nstrategy = "round-robin"\n'))
        assert pool.explain("gemini-2.5-flash").strategy == "round-robin"

        event = reloads(
            pool, lambda: replaced(daemon.config_file, text.replace("127.0.0.1:0", "127.0.0.1:1"))
        )
        assert "restart needed for gateway.listen" in event.text

        reloads(pool, lambda: replaced(daemon.config_file, text + "[selection]\nstratagem = 1\n"))
        (error,) = pool.status().config_errors
        assert "stratagem" in error.message
        assert error.line == text.count("\n") + 2


def answer_to(url: str, key: str) -> int:
    request = urllib.request.Request(f"{url}/v1beta/models", headers={"x-goog-api-key": key})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_local_key_that_cannot_be_read_locks_nobody_out(daemon: DaemonProcess) -> None:
    """The old configuration stays whole, with the key that clients have; `status` says why; the mended one counts."""
    text, url = daemon.config_file.read_text(encoding="utf-8"), daemon.url
    other = text.replace("[gateway]", '[gateway]\nkey = { file = "secrets/other" }')
    other += '[selection]\nstrategy = "round-robin"\n'
    with daemon.pool() as pool:
        reloads(pool, lambda: replaced(daemon.config_file, other))
        (error,) = pool.status().config_errors
        assert error.file == str(daemon.config_file)
        assert "secrets/other" in error.message
        assert pool.explain("gemini-2.5-flash").strategy == "adaptive"
        assert answer_to(url, daemon.key) == 200

        daemon.write_secret("other", "fake-key-other")
        assert {"gateway.key", "selection.strategy"} <= set(pool.reload().config_changed)
        assert not pool.status().config_errors
        assert pool.explain("gemini-2.5-flash").strategy == "round-robin"
        assert (answer_to(url, daemon.key), answer_to(url, "fake-key-other")) == (401, 200)


def test_a_new_local_key_counts_after_a_reload(daemon: DaemonProcess) -> None:
    """Who replaces the key's file and reloads has shut the old key out, though no setting changed."""
    url, old = daemon.url, daemon.key
    (daemon.state_dir / "gateway.key").write_text("fake-key-new", encoding="utf-8")
    with daemon.pool() as pool:
        pool.reload()
    assert (answer_to(url, old), answer_to(url, "fake-key-new")) == (401, 200)


def test_a_local_key_that_is_missing_at_start_is_told(daemon: DaemonProcess) -> None:
    """The daemon serves its socket all the same, and `status` says what is wrong with the gateway."""
    daemon.stop()
    text = daemon.config_file.read_text(encoding="utf-8")
    daemon.config_file.write_text(text.replace("[gateway]", '[gateway]\nkey = { env = "NOT_SET" }'))
    daemon.start()
    with daemon.pool() as pool:
        assert "NOT_SET" in pool.info().gateway_error
        assert pool.generate("gemini-2.5-flash", PROMPT)


def test_an_edit_disturbs_nobody(daemon: DaemonProcess, fake: FakeGoogle) -> None:
    """A stream that runs while its own account is removed from the file runs to its end."""
    with daemon.pool() as pool, pool.stream("gemini-2.5-flash", PROMPT) as stream:
        chunks = [next(stream)]
        replaced(daemon.accounts_file, api_key_account("b"))
        with daemon.pool() as other:
            other.reload()
            assert ids(other) == ["b"]
        chunks += stream
        assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
