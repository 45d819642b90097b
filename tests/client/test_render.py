"""The pool as text: columns, durations, colours and bars."""

import io
import time

import msgspec
import pytest

from gemini_pool import wire
from gemini_pool.render import Renderer, duration

NOW = 1_000_000.0


def cooldown(**changes) -> wire.CooldownInfo:
    base = wire.CooldownInfo("account-model", "a", "m", NOW + 90, "rate", True, "RetryInfo", "", NOW)
    return msgspec.structs.replace(base, **changes)


def account(**changes) -> wire.AccountInfo:
    base = wire.AccountInfo(
        id="a", backend="vertex", credential="adc", state="ready", reason="", hint="", url="", available=True,
        enabled=True, priority=0, project="p", location="global", bucket="b", cost="paid", data="no-training",
        lend=True, email="", tier="", health=wire.HealthInfo(1.0, 1.0, None, None, 0),
        token=wire.TokenInfo("fresh", NOW + 3000, None, None, 0, 0, ""), cooldowns=[],
        counters=wire.CounterInfo(1, 2, 3, 4, 5), models={}, in_flight=0, last_used_at=None,
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def entry(**changes) -> wire.QuotaEntry:
    base = wire.QuotaEntry(
        "a", "m", "f", "REQUESTS", "", 5.0, 95.0, 100.0, 0.95, NOW + 3600, "google", NOW - 60
    )
    return msgspec.structs.replace(base, **changes)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0, "0 s"), (59.4, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (3700, "1 h 1 min"),
     (86_400, "1 d"), (100_000, "1 d 3 h")],
)  # fmt: skip
def test_durations(seconds, text):
    """Two units at most, never negative."""
    assert duration(seconds) == text


def test_columns_line_up_with_and_without_colours():
    """What colours add has no width; columns without any content are left out."""
    accounts = [
        account(),
        account(id="longer-name", state="login_required", hint="gemini-pool login longer-name"),
    ]
    plain = Renderer(now=NOW).accounts(accounts)
    fancy = Renderer(fancy=True, now=NOW).accounts(accounts)
    assert "\x1b" not in plain
    assert "\x1b[31mlogin_required" in fancy
    rows = plain.splitlines()
    assert rows[0].index("BACKEND") == rows[1].index("vertex") == rows[2].index("vertex")
    assert "  longer-name: gemini-pool login longer-name" in rows
    assert "fresh, 50 min" in plain
    refused = account(token=wire.TokenInfo("expired", NOW + 3000, None, None, 0, 1, "401"))
    assert "50 min" not in Renderer(now=NOW).accounts([refused])


def test_a_cooling_account_shows_its_evidence():
    """Until when, why, and who said so."""
    text = Renderer(now=NOW).accounts(
        [account(available=False, cooldowns=[cooldown(), cooldown(told=False, model="")])]
    )
    assert "cooling" in text
    assert "m rests 1 min 30 s more: rate (told by Google, RetryInfo)" in text
    assert "all models rests 1 min 30 s more: rate (guessed, RetryInfo)" in text


def test_quota():
    """Shares, amounts and resets; bars on a terminal only; the unknown is a question mark."""
    result = wire.QuotaResult(
        [entry(), entry(model="n", fraction=None, remaining=None, limit=None, resets_at=None)],
        [wire.QuotaAggregate("gemini-3", 2, 0.1, None, None, NOW + 60)],
        {"b": "Google answers 403"},
    )
    text = Renderer(now=NOW).quota(result)
    assert "gemini-3:  10 % left over 2 accounts; first reset in 1 min" in text
    assert "95 of 100" in text
    assert "in 1 h" in text
    assert "?" in text
    assert "b: Google answers 403" in text
    assert "█" not in text
    assert "█" in Renderer(fancy=True, now=NOW).quota(result)
    assert "no quota is known" in Renderer(now=NOW).quota(wire.QuotaResult([], [], {}))


def test_explain():
    """The chosen one first, or who returns first; every verdict with its reason."""
    verdicts = [
        wire.VerdictInfo("a", "cooling", "rate", False, NOW + 30, []),
        wire.VerdictInfo("b", "dead", "x", False, None, []),
    ]
    nobody = wire.ExplainResult(
        "m", None, "a returns first", "adaptive", NOW, verdicts, NOW + 30, "a", "all_cooling_down"
    )
    text = Renderer(now=NOW).explain(nobody)
    assert text.splitlines()[0] == "m: all_cooling_down: a returns first; a returns in 30 s"
    assert "in 30 s" in text
    chosen = wire.ExplainResult("m", "a", "pinned", "adaptive", NOW, [], None, None, None)
    assert Renderer(now=NOW).explain(chosen) == "m: a (pinned)"


def test_status():
    """Errors of the files come first, then the accounts, the counters, the queue and the clients."""
    status = wire.StatusResult(
        "0.1", 1, 3700, "ready", [account()], [cooldown(scope="backend-model", key="vertex")],
        wire.Counters(**dict.fromkeys(wire.Counters.__struct_fields__, 7)), [],
        wire.QueueInfo(2, 65, [wire.QueuedModel("m", 2, 65, NOW + 9)]), [],
        [wire.ClientStatus("vi", "9", 12, NOW - 5, 1, 0)], [wire.ConfigError("f.toml", 3, 4, "bad", "hint")], "", "port taken",
    )  # fmt: skip
    text = Renderer(now=NOW).status(status)
    assert text.splitlines()[0] == "f.toml:3:4: bad"
    for part in (
        "up 1 h 1 min",
        "gateway: port taken",
        "vertex: m rests",
        "7 requests",
        "2 waiting, the first for 1 min 5 s",
        "2 for m, the next in 9 s",
        "vi 9",
    ):
        assert part in text
    assert Renderer.problem(wire.ConfigError("", 0, 0, "bad", "")) == "bad"


def test_reloaded():
    """What changed, in a line."""
    render = Renderer(now=NOW).reloaded
    assert render(wire.ReloadResult([], [], [], 3, [], [], [])) == "nothing has changed"
    result = wire.ReloadResult(["a"], ["b"], ["c", "d"], 3, ["log.level"], ["gateway.listen"], [])
    assert render(result) == (
        "added a; removed b; changed c, d; configuration: log.level; needs a restart: gateway.listen"
    )
    assert (
        render(wire.ReloadResult([], [], [], 0, [], [], [wire.ConfigError("", 0, 0, "", "")]))
        == "nothing was taken over"
    )


def test_no_accounts():
    """An empty pool says what to do."""
    assert "accounts.toml" in Renderer().accounts([])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "environ", "fancy"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_fancy_on_terminals_only(out, environ, fancy):
    """NO_COLOR (not empty), dumb terminals and files get plain text."""
    assert Renderer.of(out, environ).fancy is fancy


def test_where_quota_goes():
    """Empty at a time of day, or so much unused at the reset; used and left add up; families, newest first, have their own
    line."""
    at = NOW + 7_200
    q = wire.QuotaResult(
        [
            entry(family="gemini-3", model="gemini-3-pro", fraction=0.5, empty_at=at),
            entry(family="gemini-3", model="gemini-3-flash", fraction=0.9, unused_at_reset=0.6, token_type="TOKENS", window="day"),
            entry(family="gemini-2.5", model="gemini-2.5-pro", fraction=0.0, source="refusal"),
        ],
        [wire.QuotaAggregate("gemini-3", 1, 0.5, 5.0, 95.0, NOW + 3600, 0.25, at, None)],
        {},
    )  # fmt: skip
    text = Renderer(now=NOW).quota(q)
    clock = time.strftime("%H:%M", time.localtime(at))
    head, pro, flash = (
        next(l for l in text.splitlines() if l.startswith(w))
        for w in ("gemini-3:", "a        gemini-3-pro", "a        gemini-3-flash")
    )
    assert (
        head
        == f"gemini-3:  50 % left over 1 account, 5 used and 95 left; first reset in 1 h; empty at {clock} at this rate"
    )
    cells = [cell.strip() for cell in pro.split("  ") if cell.strip()]
    assert cells[-5:] == ["95 of 100", "in 1 h", f"empty at {clock} at this rate", "google", "1 min ago"]
    assert "tokens a day" in flash
    assert "resets in 1 h with 60 % unused" in flash
    assert text.index("gemini-3:") < text.index("gemini-2.5\n")
    assert "empty" in text.splitlines()[-1]
    assert "█" in Renderer(fancy=True, now=NOW).quota(q)


def test_status_tells_pins_and_how_requests_ended():
    """Every end that happened is named, and what is under way; quota in a line a family."""
    counters = wire.Counters(20, 10, 1, 0, 0, 2, 0, 0, 0, released=3, expired=1)
    s = wire.StatusResult(
        "0.1", 1, 60.0, "ready", [account(pinned=["m*"], reserve=0.05)], [], counters, [], wire.QueueInfo(0, 0.0),
        [entry(family="gemini-3", fraction=0.5), entry(family="gemini-3", model="n", fraction=0.25)], [], [], "", "", 3,
    )  # fmt: skip
    text = Renderer(now=NOW).status(s)
    assert (
        "20 requests: 10 answered, 1 failed, 2 cancelled, 3 given back, 1 without a word, 3 in flight" in text
    )
    assert "a: pinned, used before all others for m*" in text
    assert "a: 5 % of its quota is kept" in text
    assert "gemini-3:  25 % left" in text


def test_a_replay_without_verdicts_says_so():
    """Neither an empty table nor somebody else's verdicts."""
    e = wire.ExplainResult("m", "a", "adaptive", "adaptive", NOW - 60, [], None, None, None, "d-1", False)
    assert Renderer(now=NOW).explain(e).splitlines() == [
        "d-1, 1 min ago: m: a (adaptive)",
        "the verdicts of that moment were not recorded: too many decisions at once",
    ]
