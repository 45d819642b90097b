"""The token of the machine itself, from a metadata server (GCE, GKE, Cloud Run).

Our own GET: google-auth's class for it needs `requests`, which nothing else here does.
"""

from __future__ import annotations

from urllib.parse import quote

from ..proxies import DIRECT
from .base import Bearer, Caller, Context, CredentialError, Failure, Token, identity
from .token_endpoint import read_token

HOST = "metadata.google.internal"
PATH = "/computeMetadata/v1/instance/service-accounts/default/token"


class Metadata(Bearer):
    def __init__(self, ctx: Context, *, account: str, scopes: tuple[str, ...], kind: str = "adc") -> None:
        self.kind = kind
        self.identity = identity(kind, "metadata", scopes, "")
        self._ctx = ctx
        self._scopes = scopes
        self._account = account
        self._caller = Caller(account, ctx.transport, DIRECT)
        self._seen = False  # there is such a server: from then on its silence is a passing fault

    async def renew(self, now: float) -> Token:  # noqa: ARG002
        host = self._ctx.environ.get("GCE_METADATA_HOST") or HOST
        url = f"http://{host}{PATH}?scopes={quote(','.join(self._scopes), safe='')}"
        issued_at = self._ctx.clock.now()
        try:
            reply = await self._caller.fetch("GET", url, headers={"Metadata-Flavor": "Google"})
        except CredentialError:
            if self._seen:
                raise
            raise self._nothing_found() from None
        if reply.headers.get("Metadata-Flavor", "") != "Google" and not self._seen:
            raise self._nothing_found()
        self._seen = True
        return read_token(reply.status, reply.headers, reply.body, self._account, issued_at)

    def _nothing_found(self) -> CredentialError:
        return CredentialError(
            Failure.SECRET,
            f"account {self._account}: no application default credentials: no GOOGLE_APPLICATION_CREDENTIALS, "
            "no login of gcloud's, no metadata server",
            account=self._account,
            hint="gcloud auth application-default login",
        )
