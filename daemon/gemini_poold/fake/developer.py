"""The Gemini Developer API: models, generate, stream, count, embed. Files, caches and interactions get files of their own."""

from __future__ import annotations

from . import answers, identify, refusals, validate
from .call import Answer, Call, Handler, Place
from .envelope import Json, Refused, Reply, error
from .kept import Kept
from .limits import Exceeded
from .stream import ARRAY, SSE, WHOLE
from .throttle import bare_exhausted, gl_quota
from .world import Caller, Model, Project, World

VERSIONS = frozenset({"v1beta", "v1", "v1alpha"})


class DeveloperApi:
    """`/{version}/models[/{model}[:{method}]]` for keys, and for logins with a quota project."""

    def __init__(self, world: World, kept: Kept | None = None) -> None:
        self._world = world
        self._kept = kept
        self._methods: dict[str, tuple[str, Handler]] = {
            "generateContent": ("generate", self.generate),
            "streamGenerateContent": ("stream", self.generate),
            "countTokens": ("count", self.count),
            "embedContent": ("embed", self.embed),
            "batchEmbedContents": ("embed-many", self.embed_many),
        }

    def find(self, method: str, path: str) -> Place | None:
        _, version, *rest = path.split("/", 3)
        if version not in VERSIONS or not rest or rest[0] != "models":
            return None
        if len(rest) == 1 and method == "GET":
            return Place("models", "gl", self.models, self._who)
        name, _, verb = rest[-1].partition(":")
        if method == "GET" and not verb and len(rest) == 2:
            return Place("model", "gl", self.one_model, self._who, name, {"version": version})
        if method == "POST" and verb in self._methods:
            kind, handler = self._methods[verb]
            return Place(kind, "gl", handler, self._who, name, {"version": version, "verb": verb})
        return None

    def models(self, call: Call) -> Answer:
        served = [model for model in self._world.models.values() if "gl" in model.backends]
        size = min(1000, validate.number(call.query.get("pageSize"), 50))
        start = validate.number(call.query.get("pageToken"), 0)
        page: Json = {"models": [describe(model) for model in served[start : start + size]]}
        return Reply.json(page | ({"nextPageToken": str(start + size)} if start + size < len(served) else {}))

    def one_model(self, call: Call) -> Answer:
        return Reply.json(describe(self._model(call, "GetModel")))

    def generate(self, call: Call) -> Answer:
        """One answer or a stream, `alt=sse` or a JSON array."""
        body = call.json()
        validate.check(body, validate.GENERATE)
        validate.roles(validate.get(body, "contents"), required=False)
        model = self._model(call, "generateContent")
        project = self._project(call)
        if self._kept is not None:
            self._kept.check_use(body, project.id)
        self._take(project, model, answers.count_tokens(body))
        mode = WHOLE if call.kind == "generate" else SSE if call.query.get("alt") == "sse" else ARRAY
        return answers.generation(call, body, model, project=project.id, mode=mode)

    def count(self, call: Call) -> Answer:
        body = call.json()
        validate.check(body, validate.GL_COUNT)
        self._model(call, "countTokens")
        inner = validate.get(body, "generateContentRequest") or body
        validate.roles(validate.get(inner, "contents"), required=False)
        total = answers.count_tokens(inner)
        return Reply.json(
            {"totalTokens": total, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": total}]}
        )

    def embed(self, call: Call) -> Answer:
        body, model, project = call.json(), self._model(call, "embedContent"), self._project(call)
        self._take(project, model, 1)
        return Reply.json({"embedding": self._embedding(body)})

    def embed_many(self, call: Call) -> Answer:
        body, model, project = call.json(), self._model(call, "embedContent"), self._project(call)
        validate.check(body, {"requests": [validate.EMBED]})
        requests = body.get("requests") or []
        for request in requests:
            if request.get("model") != f"models/{model.name}":
                raise Refused(
                    refusals.invalid_argument(
                        "* BatchEmbedContentsRequest.model: model must match the path.\n"
                    )
                )
        self._take(project, model, len(requests))
        return Reply.json({"embeddings": [self._embedding(request) for request in requests]})

    def _embedding(self, body: Json) -> Json:
        validate.check(body, validate.EMBED)
        text = answers.prompt_text({"contents": [body.get("content") or {}]})
        if not text:
            raise Refused(
                refusals.invalid_argument("* EmbedContentRequest.content: contents is not specified\n")
            )
        return {
            "values": answers.embedding(
                text, validate.number(validate.get(body, "outputDimensionality"), 768)
            )
        }

    def _who(self, call: Call) -> Caller:
        return identify.developer(self._world, call)

    def _model(self, call: Call, method: str) -> Model:
        model = self._world.model(call.model)
        if (
            model is None
            or "gl" not in model.backends
            or (method != "GetModel" and method not in model.methods)
        ):
            version = call.place.params["version"] if call.place else "v1beta"
            raise Refused(refusals.gl_model_not_found(call.model, version, method))
        return model

    def _project(self, call: Call) -> Project:
        """Who pays: the key's project, or the one that a login names."""
        caller = call.caller
        if caller is None:
            raise Refused(refusals.unregistered_caller())
        name = caller.project if caller.kind == "key" else identify.check_user_project(call, caller, "")
        if not name:
            words = "Your application is authenticating by using local Application Default Credentials. The"
            words += " generativelanguage.googleapis.com API requires a quota project, which is not set by default."
            raise Refused(error(403, words))
        return self._world.projects[name]

    def _take(self, project: Project, model: Model, tokens: int) -> None:
        if exceeded := self._world.meter.take(project.id, model.name, tokens):
            raise Refused(_refusal(exceeded, project, model))


def describe(model: Model) -> Json:
    return {
        "name": f"models/{model.name}",
        "version": "001",
        "displayName": model.name.replace("-", " ").title(),
        "description": f"A model of the fake: {model.name}",
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": [name for name in model.methods if name != "streamGenerateContent"],
        "temperature": 1,
        "topP": 0.95,
        "topK": 64,
        "maxTemperature": 2,
        **({"thinking": True} if model.thinking else {}),
    }


def _refusal(exceeded: Exceeded, project: Project, model: Model) -> Json:
    """What this project's 429 tells: by default the truth, except that Google's word on a spent day is 44 s."""
    if project.hints == "none":
        return bare_exhausted()
    short = project.hints == "google" and exceeded.what in {"rpd", "tpd"}
    delay = "44.097740004s" if short else f"{exceeded.wait_s:.9f}s"
    return gl_quota(
        exceeded.what,
        exceeded.limit,
        model=model.name,
        retry=delay,
        tier=project.tier,
        project_number=project.number,
    )
