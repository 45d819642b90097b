"""The Gemini Developer API (generativelanguage.googleapis.com): API keys, or OAuth with a quota project."""

from __future__ import annotations

from functools import lru_cache

from ..core import model as core
from ..core.model import Account
from . import translate
from .answering import Answering
from .base import GENERATE, STREAM
from .urls import model_path

RESOURCES = "resources"  # everything that is no method of a model: files, caches, interactions, batches…
VERSIONS = frozenset({"v1", "v1beta", "v1alpha"})


class DeveloperApi(Answering):
    """See `base.Backend`. Its own surface's bodies and answers pass as bytes."""

    name = core.Backend.DEVELOPER_API
    form = "gl"
    methods = GENERATE | {"countTokens", "embedContent", "batchEmbedContents", RESOURCES}

    def __init__(self, base_url: str) -> None:
        self._base = base_url

    def url(self, account: Account, model: str, method: str, *, project: str, version: str = "v1beta") -> str:
        del account, project  # a key's project is nowhere in its URLs
        return _url(self._base, version if version in VERSIONS else "v1beta", model, method)

    def resource(self, path: str, account: Account, project: str) -> str:
        """The URL of what is no model's; `path` with its version and query."""
        del account, project  # a key's project is nowhere in its URLs
        return self._base + path

    def socket(self, path: str, account: Account) -> str:
        """Where the Live API is; `path` as the client said it."""
        del account
        return self._base + path

    def placed(self, body: bytes, account: Account, project: str) -> bytes:
        del account, project
        return body

    def headers(self, account: Account, *, project: str) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if project and account.credential != "api-key":
            headers["x-goog-user-project"] = project
        return headers

    def request(
        self, surface: str, method: str, model: str, body: bytes, *, project: str, session: str = ""
    ) -> bytes:
        del project, session
        if method in GENERATE:
            return body if surface == "gl" else _generate(surface, body)
        if method == "countTokens":
            return _count(surface, model, body)
        return _embed(method, model, body)

    def takes_raw(self, surface: str, method: str) -> bool:
        return surface == "gl" and method in GENERATE

    def response(self, surface: str, method: str, body: bytes) -> bytes:
        return translate.wrapped(body) if surface == "ca" and method in GENERATE else body


@lru_cache(maxsize=256)
def _url(base_url: str, version: str, model: str, method: str) -> str:
    query = "?alt=sse" if method == STREAM else ""
    return f"{base_url}/{version}/{model_path(model)}:{method}{query}"


_NAME = "The Developer API"


def _generate(surface: str, body: bytes) -> bytes:
    parts = translate.inner(surface, body)
    translate.refuse_bound(parts, _NAME)
    translate.refuse_vertex_only(parts, _NAME)
    translate.cleaned(parts, roles=False)
    return translate.join(parts)


def _count(surface: str, model: str, body: bytes) -> bytes:
    """Only contents may stand alone; anything more goes into a whole request, which must name the URL's model."""
    name = translate.text(f"models/{model}")
    if surface == "gl":
        parts = translate.fields(body)
        wrapper = next(
            (n for n in ("generateContentRequest", "generate_content_request") if n in parts), None
        )
        if wrapper is None:
            return body
        request = translate.fields(parts[wrapper], f"`{wrapper}`")
        if request.get("model") == name:
            return body
        return translate.join({**parts, wrapper: translate.nested({**request, "model": name})})
    request = translate.counted(surface, body)
    translate.refuse_bound(request, _NAME)
    translate.refuse_vertex_only(request, _NAME)
    translate.cleaned(request, roles=False)
    if set(request) <= {"contents"}:
        return translate.join(request)
    return translate.join({"generateContentRequest": translate.nested({"model": name, **request})})


def _embed(method: str, model: str, body: bytes) -> bytes:
    """The model stands in these bodies, too; after an alias it must be the URL's."""
    name = translate.text(f"models/{model}")
    parts = translate.fields(body)
    if method == "embedContent":
        if "model" not in parts or parts["model"] == name:
            return body
        return translate.join({**parts, "model": name})
    requests = translate.objects(parts.get("requests"), "`requests`")
    if all(r.get("model") == name for r in requests):
        return body
    return translate.join({**parts, "requests": translate.array([{**r, "model": name} for r in requests])})
