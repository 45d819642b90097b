"""Words for people: every state an account can be in has a next step that can be typed or opened."""

from __future__ import annotations

import pytest

from gemini_pool import wire
from gemini_poold.core.member import Member
from gemini_poold.core.model import Account, AccountState, Backend, Kind, Outcome
from gemini_poold.login import terms, verdict
from gemini_poold.login.verdict import Case, next_step

CASE = Case("work", hint="do this", url="https://page.example/", email="ann@example.com", project="shop")


def test_ready_needs_nothing() -> None:
    """Only an account that serves has no next step."""
    assert [state for state in AccountState if not next_step(state, CASE)] == [AccountState.READY]


@pytest.mark.parametrize("state", [s for s in AccountState if s is not AccountState.READY])
def test_a_step_names_something_to_do(state: AccountState) -> None:
    """A command, a page, or what Google's table said; without any of those at least a command."""
    step = next_step(state, CASE)
    assert "gemini-pool" in step or "https://page.example/" in step or step == "do this"
    assert next_step(state, Case("work"))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (AccountState.UNLICENSED, ["project shop", "https://page.example/", "account verify work"]),
        (
            AccountState.NEEDS_VALIDATION,
            ["open https://page.example/", "ann@example.com", "account verify work"],
        ),
        (AccountState.SUSPENDED, ["appeal at https://page.example/", "account clear-cooldown work"]),
        (AccountState.MISCONFIGURED, ["do this (https://page.example/)", "account verify work"]),
        (AccountState.UNSUPPORTED_CLIENT, ["API key", "licence"]),
    ],
)
def test_pages_and_people_are_named(state: AccountState, words: list[str]) -> None:
    """The page that Google gave and the person that must open it are in the step."""
    step = next_step(state, CASE)
    assert not [word for word in words if word not in step], step


def member(**more: object) -> Member:
    made = Member(Account("work", Backend.CODE_ASSIST, credential="oauth"), 0)
    for name, value in more.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("state", "licensed"),
    [
        (AccountState.READY, True), (AccountState.UNLICENSED, False), (AccountState.UNSUPPORTED_CLIENT, False),
        (AccountState.STARTING, None), (AccountState.NEEDS_VALIDATION, None),
    ],
)  # fmt: skip
def test_licensed_is_said_when_known(state: AccountState, licensed: bool | None) -> None:
    """Yes, no, or nobody knows yet."""
    assert verdict.of_member(member(state=state), project="").licensed is licensed


def test_old_reasons_are_not_shown() -> None:
    """A ready account has no reason, whatever an earlier trouble left there."""
    found = verdict.of_member(member(state=AccountState.READY, reason="old", url="https://x"), project="shop")
    assert (found.ok, found.reason, found.url, found.next) == (True, "", "", "")


@pytest.mark.parametrize(
    ("outcome", "state", "words"),
    [
        (Outcome(Kind.ACCOUNT, state=AccountState.UNLICENSED, reason="r"), "unlicensed", "licence"),
        (Outcome(Kind.UNAUTHENTICATED, reason="r"), "ready", "gemini-pool login work"),
        (Outcome(Kind.TRANSIENT, reason="r"), "ready", "account verify work"),
        (Outcome(Kind.CLIENT, reason="r"), "ready", "journalctl"),
    ],
)
def test_what_a_real_call_said(outcome: Outcome, state: str, words: str) -> None:
    """A refused call is not ok, and its reason is Google's."""
    found = verdict.refused(verdict.of_member(member(state=AccountState.READY), project="shop"), outcome)
    assert (found.ok, found.state, found.reason) == (False, state, "r")
    assert words in found.next
    assert isinstance(found, wire.AccountVerdict)


# ---- the terms ---------------------------------------------------------------------------------------------------


def test_a_record_has_its_day_and_its_wording() -> None:
    """What was accepted, and when, can be read years later; nothing accepted is nothing recorded."""
    assert terms.record("", 0.0) == ""
    record = terms.record(terms.FOREIGN_CLIENT.id, 1_795_000_000.0)
    assert record == f"2026-11-18 {terms.FOREIGN_CLIENT.id}: {terms.FOREIGN_CLIENT.text}"
    assert "\n" not in record
