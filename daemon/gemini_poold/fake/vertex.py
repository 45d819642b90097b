"""Vertex AI: publisher models of a project and location, and express mode."""

from __future__ import annotations

from . import answers, identify, refusals, validate
from .call import Answer, Call, Handler, Place
from .envelope import Json, Refused, Reply
from .limits import Exceeded
from .stream import ARRAY, SSE, WHOLE
from .throttle import VX_SERVICE, vx_exhausted, vx_quota
from .vertex_kept import VertexKept
from .world import Caller, Model, Project, World

VERSIONS = frozenset({"v1", "v1beta1"})
_MODELS = "publishers/google/models"


class VertexApi:
    """`/{version}/[projects/P/locations/L/]publishers/google/models[/{model}:{method}]`."""

    def __init__(self, world: World, kept: VertexKept) -> None:
        self._world = world
        self._kept = kept
        self._methods: dict[str, tuple[str, Handler]] = {
            "generateContent": ("generate", self.generate),
            "streamGenerateContent": ("stream", self.generate),
            "countTokens": ("count", self.count),
            "predict": ("embed", self.predict),
            "embedContent": ("embed", self.embed),
        }

    def find(self, method: str, path: str) -> Place | None:
        _, version, *rest = path.split("/", 2)
        where, found, tail = rest[0].partition(_MODELS) if rest else ("", "", "")
        if version not in VERSIONS or not found:
            return None
        params = _where(where)
        if params is None:
            return None
        if method == "GET" and not tail and not params["project"]:
            return Place("models", "vx", self.models, self._who)
        name, _, verb = tail.removeprefix("/").partition(":")
        if method != "POST" or verb not in self._methods or not name:
            return None
        kind, handler = self._methods[verb]
        who = self._who if params["project"] else self._who_express
        return Place(kind, "vx", handler, who, name, params)

    def models(self, _call: Call) -> Answer:
        names = [model.name for model in self._world.models.values() if "vx" in model.backends]
        listed = [
            {"name": f"publishers/google/models/{name}", "versionId": "default", "launchStage": "GA"}
            for name in names
        ]
        return Reply.json({"publisherModels": listed})

    def generate(self, call: Call) -> Answer:
        body = call.json()
        validate.check(body, validate.GENERATE)
        validate.roles(validate.get(body, "contents"), required=True)
        project, location, model = self._target(call, "generateContent")
        self._kept.check_use(body, project, location)
        self._take(project, location, model, answers.count_tokens(body))
        mode = WHOLE if call.kind == "generate" else SSE if call.query.get("alt") == "sse" else ARRAY
        answer = answers.generation(call, body, model, project=project.id, mode=mode)
        answer.events[-1]["usageMetadata"]["trafficType"] = "ON_DEMAND"
        return answer

    def count(self, call: Call) -> Answer:
        body = call.json()
        validate.check(body, validate.VERTEX_COUNT)
        validate.roles(validate.get(body, "contents"), required=True)
        self._target(call, "countTokens")
        total = answers.count_tokens(body)
        details = [{"modality": "TEXT", "tokenCount": total}]
        return Reply.json(
            {"totalTokens": total, "totalBillableCharacters": total * 4, "promptTokensDetails": details}
        )

    def predict(self, call: Call) -> Answer:
        """Embeddings in the classic form."""
        body = call.json()
        validate.check(body, {"instances": None, "parameters": None})
        project, location, model = self._target(call, "embedContent")
        instances = body.get("instances") or []
        self._take(project, location, model, len(instances))
        size = validate.number((body.get("parameters") or {}).get("outputDimensionality"), 768)
        return Reply.json(
            {"predictions": [_prediction(str(each.get("content", "")), size) for each in instances]}
        )

    def embed(self, call: Call) -> Answer:
        body = call.json()
        validate.check(body, validate.EMBED)
        project, location, model = self._target(call, "embedContent")
        self._take(project, location, model, 1)
        text = answers.prompt_text({"contents": [body.get("content") or {}]})
        values = answers.embedding(text, validate.number(validate.get(body, "outputDimensionality"), 768))
        return Reply.json({"embedding": {"values": values}})

    def _who(self, call: Call) -> Caller:
        return identify.cloud(self._world, call)

    def _who_express(self, call: Call) -> Caller:
        return identify.express(self._world, call)

    def _target(self, call: Call, method: str) -> tuple[Project, str, Model]:
        """Project, location and model of the path, as far as the caller may use them."""
        params = call.place.params if call.place else {}
        caller, location = call.caller, params.get("location") or "global"
        name = params.get("project") or (caller.project if caller else "")
        project = self._world.projects.get(name)
        if caller is None or project is None or name not in caller.projects:
            resource = (
                f"//{VX_SERVICE}/projects/{name}/locations/{location}/publishers/google/models/{call.model}"
            )
            raise Refused(refusals.permission_denied("aiplatform.endpoints.predict", resource))
        identify.check_user_project(call, caller, VX_SERVICE)
        if VX_SERVICE in project.disabled:
            raise Refused(refusals.service_disabled(VX_SERVICE, project.number))
        model = self._world.model(call.model.partition("@")[0])
        absent = model is None or "vx" not in model.backends or method not in model.methods
        if model is None or absent or (model.locations and location not in model.locations):
            raise Refused(refusals.vx_model_not_found(name, location, call.model))
        return project, location, model

    def _take(self, project: Project, location: str, model: Model, tokens: int) -> None:
        if exceeded := self._world.meter.take(f"{project.id}/{location}", model.name, tokens):
            raise Refused(_refusal(exceeded, project, location, model))


def _where(text: str) -> dict[str, str] | None:
    """`projects/P/locations/L/` or nothing at all (express mode)."""
    if not text:
        return {"project": "", "location": ""}
    match text.split("/"):
        case ["projects", project, "locations", location, ""]:
            return {"project": project, "location": location}
    return None


def _refusal(exceeded: Exceeded, project: Project, location: str, model: Model) -> Json:
    if project.hints == "none":
        return vx_exhausted()
    delay = f"{exceeded.wait_s:.9f}s" if project.hints == "honest" else None
    return vx_quota(
        model.name, project_number=project.number, location=location, limit=exceeded.limit, retry=delay
    )


def _prediction(text: str, size: int) -> Json:
    statistics = {"token_count": (len(text) + 3) // 4, "truncated": False}
    return {"embeddings": {"values": answers.embedding(text, size), "statistics": statistics}}
