"""Names of what Google keeps for one account: where they stand in paths, requests and answers, and how long they live.

Vertex's names are whole paths (`projects/P/locations/L/cachedContents/C`), where the project is an id or a number as it
pleases; here they are `vertex/cachedContents/C`.

Pure. Requests are searched as bytes: a name is found without decoding a body, and never inside a text, where its quotes
would be escaped. Who owns a name is `runtime.forward`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

COLLECTIONS = frozenset({
    "files", "cachedContents", "interactions", "batches", "operations", "tunedModels", "fileSearchStores", "corpora",
    "agents", "triggers", "environments", "webhooks",
})  # fmt: skip
VERTEX = "vertex/"
VERTEX_COLLECTIONS = frozenset({"cachedContents", "batchPredictionJobs", "operations"})
DAY_S = 86_400.0
LIVES_S = {"files": 2 * DAY_S, "cachedContents": 3_600.0, "interactions": 55 * DAY_S, "upload": 7 * DAY_S}
LIVES_LONG_S = 365 * DAY_S

_FIELDS = (
    "fileUri|file_uri|fileName|file_name|cachedContent|cached_content|previous_interaction_id|previousInteractionId"
    "|agent|environment|environment_id|uri|operationName"
)
_ONE = re.compile(rf'"({_FIELDS})"\s*:\s*"([^"\\]{{1,400}})"'.encode())
_MANY = re.compile(rb'"(?:fileSearchStoreNames|file_search_store_names)"\s*:\s*\[([^\]]{0,4000})\]')
_TEXT = re.compile(rb'"([^"\\]{1,400})"')
_COLLECTION_OF = {
    b"previous_interaction_id": "interactions", b"previousInteractionId": "interactions", b"agent": "agents",
    b"environment": "environments", b"environment_id": "environments",
}  # fmt: skip
_ID = re.compile(r"[A-Za-z0-9._~-]{1,200}")


def _may_name(body: bytes) -> bool:
    return (  # spelt out: a generator costs more than what it looks for, in a body that is small
        b"ile" in body
        or b"ached" in body
        or b"revious" in body
        or b"operationName" in body
        or b'"uri"' in body
        or b'"agent"' in body
        or b'"environment' in body
    )


def named_in(body: bytes) -> set[str]:
    """Every kept thing that a request names (`files/abc`, `cachedContents/x`, `interactions/y`…)."""
    if not _may_name(body):
        return set()
    text = body.replace(b"\\/", b"/")
    found = {
        _canonical(value.decode("utf-8", "replace"), _COLLECTION_OF.get(field, ""))
        for field, value in _ONE.findall(text)
    }
    for listed in _MANY.findall(text):
        found |= {_canonical(value.decode("utf-8", "replace")) for value in _TEXT.findall(listed)}
    return found - {""}


def of_path(rest: list[str]) -> str:
    """The kept thing that a path below its version is about, empty for a whole collection."""
    if rest[:1] == ["models"] and len(rest) == 4 and rest[2] == "operations":
        return "/".join(rest).partition(":")[0]
    if len(rest) < 2 or rest[0] not in COLLECTIONS:
        return ""
    return f"{rest[0]}/{rest[1].partition(':')[0]}"


def of_vertex_path(rest: list[str]) -> str:
    """The same below `projects/P/locations/L/`."""
    if rest[:1] == ["models"] and len(rest) == 4 and rest[2] == "operations":
        return VERTEX + "/".join(rest).partition(":")[0]
    if len(rest) < 2 or rest[0] not in VERTEX_COLLECTIONS:
        return ""
    return f"{VERTEX}{rest[0]}/{rest[1].partition(':')[0]}"


def in_answer(value: Any, collection: str) -> Iterator[tuple[str, Any]]:
    """Names in an answer, each with the object that has it. `collection`: what was asked for."""
    if not isinstance(value, dict):
        return
    for holder in (
        value,
        value.get("file"),
        value.get("interaction"),
        value.get("response"),
        *_listed(value, collection),
    ):
        if not isinstance(holder, dict):
            continue
        name = holder.get("name") or holder.get("id")
        if isinstance(name, str) and (known := _canonical(name, collection)):
            yield known, holder


def until(name: str, holder: Any, now: float) -> float:
    """When Google forgets it: as it says itself, else as its documents say."""
    for field in ("expireTime", "expirationTime"):
        if isinstance(holder, dict) and isinstance(told := holder.get(field), str):
            try:
                return datetime.fromisoformat(_micro(told)).timestamp()
            except ValueError:
                continue
    return now + LIVES_S.get(name.removeprefix(VERTEX).partition("/")[0], LIVES_LONG_S)


def _micro(text: str) -> str:
    """Google's nanoseconds are more than a datetime takes."""
    return re.sub(r"(\.\d{6})\d+", r"\1", text).replace("Z", "+00:00")


def _listed(value: dict[str, Any], collection: str) -> list[Any]:
    listed = value.get(collection)
    return listed if isinstance(listed, list) else []


def _canonical(name: str, collection: str = "") -> str:
    """`files/abc` of a URL, a name, or of an id in a collection; empty for anything else."""
    if "://" in name:
        host, _, path = name.partition("://")[2].partition("/")
        if "/files/" not in f"/{path}" or not (
            "google" in host or host.startswith(("127.", "localhost", "["))
        ):
            return ""
        name = "files/" + path.rpartition("files/")[2]
    if name.startswith("projects/"):
        segments = name.split("/")
        if len(segments) < 6 or segments[2] != "locations":
            return ""
        rest = segments[4:]
        found = of_vertex_path(rest[2:] if rest[:2] == ["publishers", "google"] else rest)
        return found if all(map(_ID.fullmatch, found.split("/"))) else ""
    segments = name.partition(":")[0].split("/")
    if len(segments) == 1 and collection and _ID.fullmatch(name):
        return f"{collection}/{name}"
    if segments[0] == "models" and len(segments) == 4 and segments[2] == "operations":
        return "/".join(segments)
    if len(segments) >= 2 and segments[0] in COLLECTIONS and _ID.fullmatch(segments[1]):
        return f"{segments[0]}/{segments[1]}"
    return ""
