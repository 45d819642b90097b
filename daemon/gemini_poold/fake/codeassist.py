"""The private Code Assist API, `/v1internal:*`: set-up of an account, wrapped generation, quota, and the small calls."""

from __future__ import annotations

import re
from itertools import count

from . import answers, identify, refusals, validate
from .call import Answer, Call, Handler, Place
from .clock import rfc3339
from .envelope import Json, Refused, Reply, error
from .limits import Exceeded
from .stream import ARRAY, SSE, WHOLE
from .throttle import CLOUDCODE, bare_exhausted, ca_quota_exhausted, ca_rate_limited
from .world import Caller, CodeAssist, Model, User, World

PREFIX = "/v1internal"
_FREE = "free-tier"
_NAMES = {
    "free-tier": "Gemini Code Assist for individuals",
    "standard-tier": "Gemini Code Assist",
    "legacy-tier": "",
}
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]*)"')
_serial = count(1)


class CodeAssistApi:
    """For people only; a service account or a key has no business here."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._operations: dict[str, tuple[User, int]] = {}  # name -> (whose, polls until it is done)
        self._methods: dict[tuple[str, str], tuple[str, Handler]] = {
            ("POST", "loadCodeAssist"): ("load", self.load),
            ("POST", "onboardUser"): ("onboard", self.onboard),
            ("POST", "generateContent"): ("generate", self.generate),
            ("POST", "streamGenerateContent"): ("stream", self.generate),
            ("POST", "countTokens"): ("count", self.count),
            ("POST", "retrieveUserQuota"): ("quota", self.quota),
            ("POST", "listExperiments"): ("experiments", self.experiments),
            ("POST", "fetchAdminControls"): ("admin-controls", self.admin_controls),
            ("POST", "recordCodeAssistMetrics"): ("metrics", self.metrics),
            ("GET", "getCodeAssistGlobalUserSetting"): ("settings", self.settings),
            ("POST", "setCodeAssistGlobalUserSetting"): ("settings", self.settings),
        }

    def find(self, method: str, path: str) -> Place | None:
        if method == "GET" and path.startswith(f"{PREFIX}/operations/"):
            return Place(
                "operation", "ca", self.operation, self._who, params={"name": path[len(PREFIX) + 1 :]}
            )
        if not path.startswith(f"{PREFIX}:"):
            return None
        found = self._methods.get((method, path[len(PREFIX) + 1 :]))
        return Place(found[0], "ca", found[1], self._who) if found else None

    # Set-up

    def load(self, call: Call) -> Answer:
        user = self._user(call)
        assist = user.code_assist
        validate.check(call.json(), {"cloudaicompanionProject": None, "metadata": None, "mode": None})
        if assist.load_refusal:
            raise Refused(assist.load_refusal)
        answer: Json = {
            "allowedTiers": [] if assist.ineligible else [_tier(assist.default_tier, default=True)]
        }
        if assist.tier:
            answer["currentTier"] = _tier(assist.tier)
            if assist.project:
                answer["cloudaicompanionProject"] = (
                    {"id": assist.project} if assist.project_as_object else assist.project
                )
        if assist.paid_tier:
            answer["paidTier"] = {"id": assist.paid_tier, "name": assist.paid_tier}
        if assist.ineligible:
            answer["ineligibleTiers"] = assist.ineligible
        return Reply.json(answer)

    def onboard(self, call: Call) -> Answer:
        user, body = self._user(call), call.json()
        validate.check(body, {"tierId": None, "cloudaicompanionProject": None, "metadata": None})
        tier, project = body.get("tierId", ""), body.get("cloudaicompanionProject", "")
        if tier == _FREE and project:
            raise Refused(error(400, "Precondition check failed.", status="FAILED_PRECONDITION"))
        if tier != _FREE and not project:
            raise Refused(error(400, "A project is required for this tier.", status="FAILED_PRECONDITION"))
        if project:
            self._check_project(user, project)
            user.code_assist.project = project
        user.code_assist.tier = tier
        name = f"operations/fake{next(_serial):06d}"
        self._operations[name] = (user, user.code_assist.onboarding)
        return Reply.json(self._operation(name))

    def operation(self, call: Call) -> Answer:
        name = call.place.params["name"] if call.place else ""
        user, left = self._operations.get(name, (None, 0))
        if user is None or user is not call.caller:
            raise Refused(refusals.not_found())
        self._operations[name] = (user, left - 1)
        return Reply.json(self._operation(name))

    def _operation(self, name: str) -> Json:
        user, left = self._operations[name]
        if left > 0:
            return {"name": name, "done": False}
        if user.code_assist.operation_error:
            return {
                "name": name,
                "done": True,
                "error": {"code": 9, "message": user.code_assist.operation_error},
            }
        project = user.code_assist.project
        return {
            "name": name,
            "done": True,
            "response": {"cloudaicompanionProject": {"id": project, "name": project}},
        }

    # Generation

    def generate(self, call: Call) -> Answer:
        body, user = call.json(), self._user(call)
        validate.check(body, validate.CODE_ASSIST)
        name = str(body.get("model", ""))
        if not name or name.startswith("models/"):
            raise Refused(refusals.invalid_argument())
        if not body.get("project"):
            raise Refused(refusals.invalid_argument("Missing project.", field="project"))
        self._licensed(user, str(body["project"]))
        inner = body.get("request") or {}
        validate.check(inner, validate.CODE_ASSIST_INNER, "request")
        validate.roles(validate.get(inner, "contents"), required=False)
        if "model" in inner:
            raise Refused(refusals.unknown_field("model", "request"))
        model = self._model(name)
        self._take(user, model, answers.count_tokens(inner))
        mode = WHOLE if call.kind == "generate" else SSE if call.query.get("alt") == "sse" else ARRAY
        answer = answers.generation(call, inner, model, project=str(body["project"]), mode=mode)
        trace = f"{next(_serial):016x}"
        answer.wrap = lambda event: {"response": event, "traceId": trace}
        answer.headers["x-cloudaicompanion-trace-id"] = trace
        return answer

    def count(self, call: Call) -> Answer:
        """Here, and only here, the model is inside the request and carries its `models/`."""
        body, user = call.json(), self._user(call)
        validate.check(body, {"request": validate.GENERATE})
        inner = body.get("request") or {}
        name = str(inner.get("model", ""))
        if not name.startswith("models/"):
            raise Refused(refusals.invalid_argument())
        self._model(name.removeprefix("models/"))
        if user.code_assist.refusal:
            raise Refused(user.code_assist.refusal)
        return Reply.json({"totalTokens": answers.count_tokens(inner)})

    # Quota and the rest

    def quota(self, call: Call) -> Answer:
        body, user = call.json(), self._user(call)
        validate.check(body, {"project": None, "userAgent": None})
        self._licensed(user, str(body.get("project", "")))
        if user.code_assist.buckets is not None:
            return Reply.json({"buckets": user.code_assist.buckets})
        named = [model for model in self._world.models.values() if "ca" in model.backends and model.thinking]
        return Reply.json({"buckets": [self._bucket(user, model) for model in named]})

    def experiments(self, call: Call) -> Answer:
        self._user(call)
        flag = {"flagId": 45752213, "boolValue": False}
        return Reply.json({"experimentIds": [1], "flags": [flag], "filteredFlags": [], "debugString": ""})

    def admin_controls(self, call: Call) -> Answer:
        self._user(call)
        features = {"extensionsSetting": {"extensionsEnabled": True}, "unmanagedCapabilitiesEnabled": True}
        controls = {
            "secureModeEnabled": False,
            "strictModeDisabled": True,
            "mcpSetting": {"mcpEnabled": True, "mcpConfigJson": "{}"},
        }
        return Reply.json(controls | {"cliFeatureSetting": features, "adminControlsApplicable": True})

    def metrics(self, call: Call) -> Answer:
        self._user(call)
        return Reply.json({})

    def settings(self, call: Call) -> Answer:
        user, body = self._user(call), call.json()
        optin = body.get("freeTierDataCollectionOptin", True)
        return Reply.json(
            {"cloudaicompanionProject": user.code_assist.project, "freeTierDataCollectionOptin": optin}
        )

    # Judging

    def _who(self, call: Call) -> Caller:
        if found := _MODEL.search(call.body):  # faults want to know it before the body is read
            call.model = found[1].decode("utf-8", "replace").removeprefix("models/")
        return identify.cloud(self._world, call, CLOUDCODE)

    def _user(self, call: Call) -> User:
        if not isinstance(call.caller, User):
            raise Refused(refusals.permission_denied())
        identify.check_user_project(call, call.caller, CLOUDCODE)
        return call.caller

    def _licensed(self, user: User, project: str) -> None:
        """Whether this person may use Code Assist in that project."""
        assist = user.code_assist
        if assist.refusal:
            raise Refused(assist.refusal)
        if not assist.tier:
            raise Refused(refusals.subscription_required())
        self._check_project(user, project)

    def _check_project(self, user: User, name: str) -> None:
        project = self._world.projects.get(name)
        if project is None:
            raise Refused(refusals.consumer_invalid(name))
        if refusals.COMPANION in project.disabled:
            raise Refused(refusals.service_disabled(refusals.COMPANION, project.number))
        if name not in user.projects:
            resource = f"//{refusals.COMPANION}/projects/{name}/locations/global"
            raise Refused(refusals.permission_denied("cloudaicompanion.companions.generateChat", resource))
        if not project.licensed:
            raise Refused(refusals.subscription_required(project=name))

    def _model(self, name: str) -> Model:
        model = self._world.model(name)
        if model is None or "ca" not in model.backends or "generateContent" not in model.methods:
            raise Refused(refusals.not_found())
        return model

    def _take(self, user: User, model: Model, tokens: int) -> None:
        if exceeded := self._world.meter.take(user.name, model.name, tokens):
            project = self._world.projects.get(user.code_assist.project)
            raise Refused(_refusal(exceeded, project.hints if project else "google", model))

    def _bucket(self, user: User, model: Model) -> Json:
        used, ends = self._world.meter.day(user.name, model.name)
        limits = self._world.meter.limits(user.name, model.name)
        bucket: Json = {"modelId": model.name, "tokenType": "REQUESTS", "resetTime": rfc3339(ends)}
        if limits is None or not limits.rpd:
            return bucket | {"remainingFraction": 1}
        left = max(0, limits.rpd - used)
        return bucket | {"remainingFraction": left / limits.rpd, "remainingAmount": str(left)}


def ineligible(reason: str, message: str = "", **more: str) -> Json:
    """An entry of `ineligibleTiers`."""
    text = message or f"composed: {reason}"
    return {"reasonCode": reason, "reasonMessage": text, "tierId": _FREE, "tierName": _NAMES[_FREE], **more}


def shut_down() -> CodeAssist:
    """An individual after June 2026."""
    words = (
        "This client is no longer supported for Gemini Code Assist for individuals. Please use Antigravity."
    )
    return CodeAssist(
        tier="",
        ineligible=[ineligible("UNSUPPORTED_CLIENT", words)],
        refusal=refusals.subscription_required(),
    )


def must_validate(url: str = "https://accounts.google.com/verify/fake") -> CodeAssist:
    more = {
        "validationErrorMessage": "Verify your account.",
        "validationUrl": url,
        "validationUrlLinkText": "Verify",
    }
    tier = ineligible("VALIDATION_REQUIRED", **more)
    return CodeAssist(tier="", ineligible=[tier], refusal=refusals.validation_required(url))


def _tier(tier: str, *, default: bool = False) -> Json:
    name = _NAMES.get(tier, tier)
    known: Json = {"id": tier, "name": name, "userDefinedCloudaicompanionProject": tier != _FREE}
    return known | (
        {"isDefault": True} if default else {"hasAcceptedTos": True, "hasOnboardedPreviously": True}
    )


def _refusal(exceeded: Exceeded, hints: str, model: Model) -> Json:
    if hints == "none":
        return bare_exhausted()
    delay = f"{exceeded.wait_s:.9f}s"
    if exceeded.what in {"rpm", "tpm"}:
        return ca_rate_limited(delay, model=model.name)
    return ca_quota_exhausted(
        _hours(exceeded.wait_s), model=model.name, resets_at=exceeded.resets_at, retry=delay
    )


def _hours(seconds: float) -> str:
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{int(hours)}h{int(minutes)}m{rest:.3f}s" if hours else f"{int(minutes)}m{rest:.3f}s"
