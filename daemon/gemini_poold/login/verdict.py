"""What became of an account, in words for its owner: the state, why, and exactly what to type or open next. Pure.

The states and their reasons are the pool's and the backends'; here stands what a person does about each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gemini_pool import wire

from ..core.health import HELD
from ..core.member import Member
from ..core.model import AccountState as S
from ..core.model import Backend, Kind, Outcome

LICENCE = "https://cloud.google.com/gemini/docs/codeassist/request-license"
API_KEYS = "https://aistudio.google.com/apikey"


@dataclass(frozen=True, slots=True)
class Case:
    """One account in trouble. `hint` and `url` are what Google or the backend's table said."""

    account: str
    hint: str = ""
    url: str = ""
    email: str = ""
    project: str = ""

    @property
    def verify(self) -> str:
        return f"gemini-pool account verify {self.account}"

    @property
    def who(self) -> str:
        return f"signed in as {self.email}" if self.email else f"signed in as the owner of {self.account}"


def next_step(state: S, case: Case) -> str:
    """What the person does next; empty when nothing is to be done."""
    step = _STEPS.get(state)
    return step(case) if step is not None else ""


def _unlicensed(case: Case) -> str:
    page = case.url or LICENCE
    if case.project:
        return (
            f"ask the administrator of project {case.project} for a Code Assist licence ({page}), or name a project "
            f"that has one (`project` of {case.account} in accounts.toml); then: {case.verify}"
        )
    return (
        f"request a Code Assist licence ({page}) and name its project in accounts.toml; then: {case.verify}"
    )


def _unsupported(case: Case) -> str:
    return (
        "Google serves this kind of account in its own programs only, and nothing here goes around that: name a "
        f"project with a Code Assist Standard or Enterprise licence (`project` of {case.account} in accounts.toml, "
        f"then: {case.verify}), or use an API key ({API_KEYS}): gemini-pool account add NAME --backend developer-api"
    )


def _validation(case: Case) -> str:
    page = case.url or "Google's page"
    return f"open {page} {case.who} and follow it; then: {case.verify}"


def _suspended(case: Case) -> str:
    appeal = f"appeal at {case.url} {case.who}" if case.url else f"appeal to Google {case.who}"
    return f"{appeal}; once Google has lifted it: gemini-pool account clear-cooldown {case.account}"


def _misconfigured(case: Case) -> str:
    what = case.hint or f"correct `project` of {case.account} in accounts.toml"
    page = f" ({case.url})" if case.url and case.url not in what else ""
    return (
        f"{what}{page}; then: {case.verify}"
        if "account verify" not in what
        else f"{what}{page} {case.account}"
    )


def _login(case: Case) -> str:
    return case.hint if "gemini-pool" in case.hint else f"gemini-pool login {case.account}"


def _hint(case: Case) -> str:
    return case.hint or f"gemini-pool account verify {case.account}"


_STEPS: Mapping[S, Callable[[Case], str]] = {
    S.UNLICENSED: _unlicensed,
    S.UNSUPPORTED_CLIENT: _unsupported,
    S.NEEDS_VALIDATION: _validation,
    S.SUSPENDED: _suspended,
    S.MISCONFIGURED: _misconfigured,
    S.LOGIN_REQUIRED: _login,
    S.CLIENT_INVALID: _login,
    S.DEAD: _hint,
    S.SECRET_MISSING: _hint,
    S.BLOCKED_BY_TERMS: _hint,
    S.DISABLED: lambda case: f"gemini-pool account enable {case.account}",
    S.PAUSED: lambda case: f"gemini-pool resume {case.account}",
    S.OFFLINE: lambda _case: "it is tried again by itself; gemini-pool status tells when",
    S.STARTING: lambda _case: "it goes on by itself; gemini-pool status tells",
}


# ---- verdicts ---------------------------------------------------------------------------------------------------

_NOT_LICENSED = frozenset({S.UNLICENSED, S.UNSUPPORTED_CLIENT})


def of_member(member: Member, *, project: str, notes: list[str] | None = None) -> wire.AccountVerdict:
    """What the pool says of the account now."""
    state = member.shown_state
    held = state in HELD or state is S.OFFLINE
    case = Case(member.id, member.hint if held else "", member.url if held else "", member.email, project)
    return wire.AccountVerdict(
        account=member.id,
        backend=member.account.backend.value,
        ok=state is S.READY,
        state=str(state),
        reason=member.reason if held else "",
        next=next_step(state, case),
        url=case.url,
        project=project,
        tier=member.tier,
        email=member.email,
        licensed=_licensed(member.account.backend, state),
        notes=notes or [],
    )


def refused(verdict: wire.AccountVerdict, outcome: Outcome) -> wire.AccountVerdict:
    """The verdict after a real call that Google did not answer as hoped."""
    if outcome.kind is Kind.ACCOUNT and outcome.state is not None:
        case = Case(verdict.account, outcome.hint, outcome.url, verdict.email, verdict.project)
        verdict.state, verdict.next = str(outcome.state), next_step(outcome.state, case)
        verdict.licensed = _licensed(Backend(verdict.backend), outcome.state)
    else:
        verdict.next = _PASSING.get(outcome.kind, "try again later: gemini-pool account verify {0}").format(
            verdict.account
        )
    verdict.ok, verdict.reason, verdict.url = False, outcome.reason, outcome.url
    return verdict


_PASSING = {
    Kind.UNAUTHENTICATED: "gemini-pool login {0}",
    Kind.CLIENT: "see why: journalctl --user -u gemini-pool",
}


def _licensed(backend: Backend, state: S) -> bool | None:
    """Whether Code Assist serves the account; None where there is no such thing, or nobody knows yet."""
    if backend is not Backend.CODE_ASSIST:
        return None
    if state is S.READY:
        return True
    return False if state in _NOT_LICENSED else None
