"""kill -9 at any moment: the state opens again, and everything that was acknowledged is there."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path

from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_pool.errors import PoolError
from gemini_poold.fake import World

SEED = int(os.environ.get("GEMINI_POOL_SEED", "20261124"))
MOMENTS = 50
NAMES = [f"k{n}" for n in range(6)]
DAILY = json.dumps({
    "error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "quota", "details": [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [
            {"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "20"}]},
    ]}
})  # fmt: skip


class Loop:
    """Requests, reports, reloads and account changes, one after the other; remembers what was acknowledged."""

    def __init__(self, daemon: DaemonProcess, rng: random.Random) -> None:
        self.daemon = daemon
        self.rng = rng
        self.resting: set[tuple[str, str]] = set()  # (account, model) of acknowledged daily refusals
        self.failed: dict[str, int] = {}
        self.accounts: list[str] = []
        self.wanted: list[str] = []
        self.acknowledged: Counter[str] = Counter()

    def run(self) -> None:
        """Until the daemon is gone."""
        try:
            with self.daemon.pool(connect_s=0.0) as pool:
                while True:
                    step = self.rng.choice((self.report, self.report, self.generate, self.change))
                    step(pool)
                    self.acknowledged[step.__name__] += 1
        except PoolError:
            return

    def report(self, pool) -> None:
        model = f"gemini-2.5-m{self.rng.randrange(1000)}"
        lease = pool.acquire(model, wait_s=0)
        pool.report(lease, status=429, body=DAILY)
        self.resting.add((lease.account, model))
        self.failed[lease.account] = self.failed.get(lease.account, 0) + 1

    def generate(self, pool) -> None:
        pool.generate("gemini-2.5-flash", "hello", account="user", wait_s=5)

    def change(self, pool) -> None:
        keep = sorted(self.rng.sample(NAMES, self.rng.randint(2, len(NAMES))))
        self.wanted = keep
        write_accounts(self.daemon, keep)
        assert pool.reload().errors == []
        self.accounts = keep
        # Whoever left the file takes their past along.
        self.resting = {(a, m) for a, m in self.resting if a in keep}
        self.failed = {a: n for a, n in self.failed.items() if a in keep}


def write_accounts(daemon: DaemonProcess, names: list[str]) -> None:
    text = "".join(api_key_account(name, lend=True) for name in names)
    text += (
        '[[account]]\nid = "user"\nbackend = "code-assist"\nproject = "proj"\n'
        'credential = { type = "oauth", secret = { file = "secrets/user.json" } }\n'
    )
    new = daemon.accounts_file.with_name("accounts.toml~")
    new.write_text(text, encoding="utf-8")
    os.replace(new, daemon.accounts_file)


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """50 kills at seeded moments: every acknowledged report, account change and rotated token survives each of them."""
    rng = random.Random(SEED)
    world = World()
    for name in NAMES:
        world.add_api_key(name)
    user = world.add_user("user", projects=["proj"])
    # A refresh token ends when its successor is first used: an answer that died with us costs nothing, one that
    # was used before it was durable costs the login. Tokens live for a second, so this happens all the time.
    world.token_life_s = 1.0
    with fake_google(world) as fake:
        daemon = DaemonProcess(tmp_path, fake=fake)
        login = world.authorized_user(user, world.add_client(), rotates=True, overlaps=True)
        daemon.write_secret("user.json", json.dumps(login))
        write_accounts(daemon, NAMES)
        loop = Loop(daemon, rng)
        loop.accounts = loop.wanted = NAMES
        for moment in range(MOMENTS):
            daemon.start()
            check(daemon, loop)
            worker = threading.Thread(target=loop.run)
            worker.start()
            after_s = rng.uniform(0.0, 0.25)
            print(f"seed {SEED}, moment {moment}: kill -9 after {after_s * 1000:.1f} ms")
            time.sleep(after_s)
            daemon.kill()
            worker.join()
            assert json.loads((daemon.state_dir / "secrets" / "user.json").read_text())["refresh_token"]
            with contextlib.closing(sqlite3.connect(daemon.state_dir / "state.db")) as db:
                assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        daemon.start()
        check(daemon, loop)
        with daemon.pool() as pool:  # the login still works: no rotated refresh token was lost
            assert pool.generate("gemini-2.5-flash", "hello", account="user", wait_s=10)
        assert daemon.stop() == 0
        rotations = fake.record.count("token", status=200)
        print(f"acknowledged: {dict(loop.acknowledged)}, refresh tokens rotated: {rotations}")
        assert min(loop.acknowledged[step] for step in ("report", "generate", "change")) >= MOMENTS
        assert rotations >= MOMENTS // 3


def check(daemon: DaemonProcess, loop: Loop) -> None:
    """What was acknowledged before the kill is in the daemon that came after it."""
    with daemon.pool() as pool:
        status = pool.status()
    found = [a.id for a in status.accounts if a.id != "user"]
    assert found in (sorted(loop.accounts), sorted(loop.wanted))
    if found != sorted(loop.accounts):  # the last change was on its way: its accounts' past is gone with them
        loop.resting = {(a, m) for a, m in loop.resting if a in found}
        loop.failed = {a: n for a, n in loop.failed.items() if a in found}
        loop.accounts = found
    resting = {(a.id, c.model) for a in status.accounts for c in a.cooldowns if c.kind == "daily"}
    assert loop.resting <= resting
    failed = {a.id: a.counters.failed for a in status.accounts}
    assert all(failed[a] >= n for a, n in loop.failed.items())
