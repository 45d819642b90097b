"""One cheap real call that shows whether an account serves: nothing is generated, nothing is spent.

Code Assist is asked for the quota (which only the licensed are told), the Developer API for its models, Vertex to
count one word. What the answer means is the backend's reading; what the account becomes by it, the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..backends import code_assist_quota
from ..backends.base import Backend as BackendImpl
from ..clock import Clock
from ..core.model import Account, AccountState, Backend, Kind, Outcome
from ..errors import UpstreamFailure
from ..transport import Transport

TIMEOUT_S = 20.0
_SEE_PROJECT = "see `project` in accounts.toml, and what the account may do there"
VERTEX_MODEL = "gemini-2.5-flash"  # asked about where the account's own list names none
_WORD = b'{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}'


@dataclass(frozen=True, slots=True)
class Probed:
    """`call`: what was asked, for people. `outcome.kind` is OK, or what Google (or the network) said."""

    call: str
    outcome: Outcome
    took_s: float

    @property
    def serves(self) -> bool:
        """A model that is missing, and a limit that is used up for now, are no faults of the account's."""
        return self.outcome.kind in _FINE


_FINE = frozenset({Kind.OK, Kind.MODEL_DENIED, Kind.RATE, Kind.DAILY, Kind.CAPACITY, Kind.CONCURRENCY})


@dataclass(frozen=True, slots=True)
class _Question:
    call: str
    method: str
    url: str
    body: bytes | None
    model: str = ""


async def ask(
    account: Account,
    headers: Mapping[str, str],
    *,
    project: str,
    backend: BackendImpl,
    transport: Transport,
    clock: Clock,
) -> Probed:
    """Ask with the account's `headers` (its token's) and `project`."""
    question = _question(account, project, backend)
    sent = {**backend.headers(account, project=project), **headers}
    began = clock.monotonic()
    try:
        reply = await transport.fetch(
            question.method,
            question.url,
            headers=sent,
            body=question.body,
            timeout_s=TIMEOUT_S,
            proxy=account.proxy,
        )
    except UpstreamFailure as failure:
        outcome = backend.classify_failure(failure)
    else:
        outcome = backend.classify(
            reply.status, reply.headers, reply.body, model=question.model, now=clock.now(), account=account
        )
    if outcome.kind is Kind.MODEL_DENIED and not question.model:  # no model was asked for: all of it is meant
        outcome = replace(outcome, kind=Kind.ACCOUNT, state=AccountState.MISCONFIGURED, hint=_SEE_PROJECT)
    return Probed(question.call, outcome, round(clock.monotonic() - began, 3))


def _question(account: Account, project: str, backend: BackendImpl) -> _Question:
    match account.backend:
        case Backend.CODE_ASSIST:
            url = backend.url(account, "", code_assist_quota.METHOD, project=project)
            return _Question(code_assist_quota.METHOD, "POST", url, code_assist_quota.request(project))
        case Backend.DEVELOPER_API:
            # The list belongs to no model, so no model's end makes a good key look bad.
            url = backend.url(account, "x", "generateContent", project=project).rpartition("/")[0]
            return _Question("models.list", "GET", f"{url}?pageSize=1", None)
        case Backend.VERTEX:
            model = next((name for name in account.models if not set(name) & set("*?[")), VERTEX_MODEL)
            url = backend.url(account, model, "countTokens", project=project)
            return _Question("countTokens", "POST", url, _WORD, model)
