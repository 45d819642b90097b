"""Token exchange (sts.googleapis.com) and impersonation (iamcredentials.googleapis.com)."""

from __future__ import annotations

from . import identify, refusals
from .call import Answer, Call, Place
from .clock import rfc3339
from .envelope import Refused, Reply
from .oauth import form, refused
from .world import CLOUD_PLATFORM, World

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
_IMPERSONATE = "/v1/projects/-/serviceAccounts/"


class Federation:
    """Workload identity pools of the world, and service accounts lent to those in their `impersonators`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._places = {("POST", "/v1/token"): Place("sts", "oauth", self.exchange)}

    def find(self, method: str, path: str) -> Place | None:
        if place := self._places.get((method, path)):
            return place
        if method == "POST" and path.startswith(_IMPERSONATE) and path.endswith(":generateAccessToken"):
            email = path[len(_IMPERSONATE) :].rpartition(":")[0]
            return Place("impersonate", "oauth", self.impersonate, params={"email": email})
        return None

    def exchange(self, call: Call) -> Answer:
        fields = form(call)
        if fields.get("grant_type") != EXCHANGE:
            raise refused(400, "unsupported_grant_type", "Unsupported grant_type")
        pool = self._world.pools.get(fields.get("audience", ""))
        if pool is None:
            raise refused(
                400, "invalid_target", "The target service indicated by the audience parameters is invalid."
            )
        call.caller = pool
        subject = fields.get("subject_token", "")
        if not subject or not ({"*", subject} & pool.subject_tokens):
            raise refused(400, "invalid_grant", "The subject token is not valid.")
        token = self._world.issue(pool, scope=fields.get("scope", CLOUD_PLATFORM))
        life = round(token.expires_at - token.issued_at)
        answer = {"access_token": token.token, "issued_token_type": ACCESS_TOKEN, "token_type": "Bearer"}
        return Reply.json(answer | {"expires_in": life})

    def impersonate(self, call: Call) -> Answer:
        email = call.place.params["email"] if call.place else ""
        caller = identify.cloud(self._world, call, "iamcredentials.googleapis.com")
        account = self._world.service_accounts.get(email)
        if account is None or caller.name not in account.impersonators:
            permission = "iam.serviceAccounts.getAccessToken"
            raise Refused(
                refusals.permission_denied(
                    permission, f"//iam.googleapis.com/projects/-/serviceAccounts/{email}"
                )
            )
        body = call.json()
        scopes = body.get("scope") or []
        if not scopes:
            raise Refused(refusals.invalid_argument("Scope required."))
        life_s = min(3600.0, float(str(body.get("lifetime", "3600s")).rstrip("s")))
        token = self._world.issue(
            account, scope=" ".join(scopes), life_s=min(life_s, account.token_life_s or life_s)
        )
        return Reply.json({"accessToken": token.token, "expireTime": rfc3339(float(int(token.expires_at)))})
