"""Vertex AI: project and location in the path, google-auth credentials, or an API key alone (express mode)."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote

import msgspec

from ..core import model as core
from ..core.model import Account
from ..errors import UNREADABLE, PoolError
from . import translate
from .answering import Answering
from .base import GENERATE, STREAM, Reading
from .urls import quoted

_NAME = "Vertex"
RESOURCES = (
    "vertex-resources"  # everything that is no method of a model: caches, batches, operations, predictions
)
_PLACE = re.compile(r"projects/[^/]+/locations/[^/]+/")
_MODEL = re.compile(
    rb'("model"\s*:\s*")(?:projects/[^/"\\]+/locations/[^/"\\]+/)?(publishers/google/models/)'
)
_MULTI_REGIONS = frozenset({"us", "eu"})


class Vertex(Answering):
    """See `base.Backend`. Answers of its surface and of the Developer API's pass as bytes."""

    name = core.Backend.VERTEX
    form = "vx"
    methods = GENERATE | {"countTokens", "embedContent", RESOURCES}

    def __init__(self, base_url: str = "") -> None:
        self._base = base_url

    def url(self, account: Account, model: str, method: str, *, project: str, version: str = "v1") -> str:
        return _url(
            self._base, account.location, project, model, method, "v1beta1" if version == "v1beta1" else "v1"
        )

    def resource(self, path: str, account: Account, project: str) -> str:
        """The URL of what is no model's: `path` with the account's own project and location in it. Raises PoolError."""
        if not project:
            raise translate.cannot(_NAME, f"this with account {account.id}, which is a key without a project")
        place = _place(project, account.location)
        version, _, rest = path.removeprefix("/").partition("/")
        if not rest.startswith("projects/"):
            rest = place + rest
        return f"{self._base or _host(account.location)}/{version}/{_PLACE.sub(place, rest, count=1)}"

    def socket(self, path: str, account: Account) -> str:
        """Where the Live API is; `path` as the client said it."""
        return (self._base or _host(account.location)) + path

    def placed(self, body: bytes, account: Account, project: str) -> bytes:
        """A body about something kept, with its model in the account's own project and location: Google takes no other."""
        if b"publishers/google/models/" not in body:
            return body
        place = _place(project, account.location).encode()
        return _MODEL.sub(lambda found: found[1] + place + found[2], body)

    def headers(self, account: Account, *, project: str) -> dict[str, str]:
        del account, project  # the project is in the path
        return {"Content-Type": "application/json"}

    def request(
        self, surface: str, method: str, model: str, body: bytes, *, project: str, session: str = ""
    ) -> bytes:
        del model, project, session
        if method not in self.methods:
            raise translate.cannot(_NAME, method)
        if method == "embedContent":
            return _predict(body)
        if surface == "vx":
            return body
        parts = translate.inner(surface, body) if method in GENERATE else translate.counted(surface, body)
        translate.refuse_bound(parts, _NAME)
        translate.cleaned(parts, roles=True)
        return translate.join(parts)

    def takes_raw(self, surface: str, method: str) -> bool:
        return surface == "vx" and (method in GENERATE or method == "countTokens")

    def response(self, surface: str, method: str, body: bytes) -> bytes:
        if method == "embedContent":
            return _embedding(body)
        if method == "countTokens":
            return body if surface == "vx" else _counted(body)
        return translate.wrapped(body) if surface == "ca" else body

    def read(self, payload: bytes) -> Reading:
        if b'"predictions"' in payload[:32]:
            return Reading(usage=_predicted_usage(payload))
        return super().read(payload)


@lru_cache(maxsize=256)
def _url(base_url: str, location: str, project: str, model: str, method: str, version: str) -> str:
    host = base_url or _host(location)
    place = _place(project, location) if project else ""
    verb, query = (
        ("predict", "") if method == "embedContent" else (method, "?alt=sse" if method == STREAM else "")
    )
    return f"{host}/{version}/{place}publishers/google/models/{quoted(model)}:{verb}{query}"


def _place(project: str, location: str) -> str:
    return f"projects/{quote(project, safe=':.')}/locations/{quote(location or 'global')}/"


def _host(location: str) -> str:
    if location in ("global", ""):
        return "https://aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


# ---- embeddings: `predict` has a form of its own --------------------------------------------------------------------


class _TextPart(msgspec.Struct, forbid_unknown_fields=True):
    text: str


class _Content(msgspec.Struct):
    parts: list[_TextPart]


class _Embed(msgspec.Struct, forbid_unknown_fields=True):
    content: _Content
    model: str = ""
    taskType: str = ""  # noqa: N815 - Google's names
    task_type: str = ""
    title: str = ""
    outputDimensionality: int | None = None  # noqa: N815
    output_dimensionality: int | None = None


class _Statistics(msgspec.Struct):
    token_count: float = 0


class _Embedding(msgspec.Struct):
    values: msgspec.Raw
    statistics: _Statistics | None = None


class _Prediction(msgspec.Struct):
    embeddings: _Embedding


class _Predictions(msgspec.Struct):
    predictions: list[_Prediction]


_embed = msgspec.json.Decoder(_Embed)
_predictions = msgspec.json.Decoder(_Predictions)


def _predict(body: bytes) -> bytes:
    try:
        asked = _embed.decode(body)
    except UNREADABLE as e:
        raise translate.cannot(_NAME, "this embedContent request", str(e)) from None
    if len(asked.content.parts) != 1:
        raise translate.cannot(_NAME, "more or fewer than one text part in embedContent")
    instance = {"content": asked.content.parts[0].text}
    if task := asked.taskType or asked.task_type:
        instance["task_type"] = task
    if asked.title:
        instance["title"] = asked.title
    size = (
        asked.outputDimensionality if asked.outputDimensionality is not None else asked.output_dimensionality
    )
    parameters = {"parameters": {"outputDimensionality": size}} if size is not None else {}
    return msgspec.json.encode({"instances": [instance], **parameters})


def _embedding(body: bytes) -> bytes:
    try:
        values = _predictions.decode(body).predictions[0].embeddings.values
    except (*UNREADABLE, IndexError):
        raise PoolError("upstream_error", "Vertex answered without an embedding") from None
    return b'{"embedding":{"values":' + bytes(values) + b"}}"


def _predicted_usage(body: bytes) -> core.Usage | None:
    try:
        found = _predictions.decode(body).predictions
    except UNREADABLE:
        return None
    tokens = sum(
        int(p.embeddings.statistics.token_count) for p in found if p.embeddings.statistics is not None
    )
    return core.Usage(input_tokens=tokens, total_tokens=tokens)


def _counted(body: bytes) -> bytes:
    """Characters are Vertex's way of billing; no other dialect has a field for them."""
    parts = translate.fields(body)
    translate.drop(parts, "totalBillableCharacters")
    return translate.join(parts)
