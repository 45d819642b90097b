"""Subscriptions: kinds, one notice of a kind in half a minute, what a deaf subscriber loses."""

import asyncio

from tests.fakes.clock import run_virtual

from gemini_poold.core.model import PoolEvent
from gemini_poold.ipc.notices import QUIET_S, Notices


def event(text: str, kind: str = "account", account: str = "a", model: str = "") -> PoolEvent:
    return PoolEvent(kind, "info", 0.0, text, account, model)


class Subscriber:
    def __init__(self, *kinds: str) -> None:
        self.got: list[tuple[str, int]] = []
        self.deaf = False
        self.notices = Notices(frozenset(kinds or ("account",)), self.take)

    def take(self, notice: PoolEvent, dropped: int) -> bool:
        if not self.deaf:
            self.got.append((notice.text, dropped))
        return not self.deaf


def test_only_what_was_asked_for():
    """Other kinds are not told."""

    async def main():
        s = Subscriber("quota")
        s.notices.offer(event("no"))
        s.notices.offer(event("yes", "quota"))
        assert s.got == [("yes", 0)]
        s.notices.close()

    run_virtual(main())


def test_once_in_half_a_minute_and_the_newest_at_its_end():
    """The first comes at once, the next ones of its kind, account and model as one, half a minute later."""

    async def main():
        s = Subscriber()
        for text in ("1", "2", "3"):
            s.notices.offer(event(text))
        s.notices.offer(event("other account", account="b"))
        s.notices.offer(event("other model", model="m"))
        assert [text for text, _ in s.got] == ["1", "other account", "other model"]
        await asyncio.sleep(QUIET_S + 1)
        assert [text for text, _ in s.got][3:] == ["3"]
        s.notices.offer(event("4"))
        assert len(s.got) == 4
        await asyncio.sleep(QUIET_S + 1)
        assert s.got[-1] == ("4", 0)
        await asyncio.sleep(QUIET_S + 1)
        s.notices.offer(event("5"))
        assert s.got[-1] == ("5", 0)
        s.notices.close()

    run_virtual(main())


def test_who_does_not_read_is_told_how_many_were_lost():
    """Dropped notices are counted, and the next one that arrives says how many."""

    async def main():
        s = Subscriber()
        s.deaf = True
        for n in range(5):
            s.notices.offer(event("lost", account=f"a{n}"))
        s.deaf = False
        s.notices.offer(event("heard", account="b"))
        s.notices.offer(event("heard too", account="c"))
        assert s.got == [("heard", 5), ("heard too", 0)]
        s.notices.close()

    run_virtual(main())


def test_close_ends_its_timers():
    """Nothing comes after the end of a subscription."""

    async def main():
        s = Subscriber()
        s.notices.offer(event("1"))
        s.notices.offer(event("2"))
        s.notices.close()
        await asyncio.sleep(2 * QUIET_S)
        assert s.got == [("1", 0)]

    run_virtual(main())
