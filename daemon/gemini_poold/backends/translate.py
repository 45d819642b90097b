"""Bodies between dialects: what the backends share. The Developer API's dialect is the pivot.

Only the fields that must change are decoded; everything else stays the bytes that came (`msgspec.Raw`). What cannot
be carried over is refused with its reason (`cannot`), never dropped in silence; what merely names a session or a
price is dropped by the backend that says so.

History that was written elsewhere is cleaned (`cleaned`): a thought signature is valid only where it was made, so
each function call gets the documented sentinel instead, other signatures and thoughts go.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Raw

from ..errors import UNREADABLE, PoolError

Fields = dict[str, Raw]

SENTINEL = "skip_thought_signature_validator"
_SENTINEL = Raw(b'"skip_thought_signature_validator"')
_USER = Raw(b'"user"')
_SIGNATURES = ("thoughtSignature", "thought_signature")
_CALLS = ("functionCall", "function_call")
_NOTEWORTHY = (b"houghtSignature", b"hought_signature", b'"thought"', b"unctionCall", b"unction_call")
_EMPTY = (b"null", b"[]", b"{}", b'""', b"false")

_object = msgspec.json.Decoder(Fields)
_objects = msgspec.json.Decoder(list[Fields])
_encode = msgspec.json.Encoder().encode


def fields(body: bytes | Raw, what: str = "the body") -> Fields:
    """The fields of a JSON object, each still encoded. Raises PoolError `bad_request`."""
    try:
        return _object.decode(body)
    except UNREADABLE as e:
        raise PoolError("bad_request", f"{what} is not a JSON object: {e}") from None


def join(parts: Fields) -> bytes:
    return _encode(parts)


def nested(parts: Fields) -> Raw:
    """`join`, as a field of another object."""
    return Raw(_encode(parts))


def objects(value: Raw | None, what: str) -> list[Fields]:
    """The objects of a JSON array, their fields still encoded. Raises PoolError `bad_request`."""
    try:
        return [] if value is None else _objects.decode(value)
    except UNREADABLE as e:
        raise PoolError("bad_request", f"{what} is not an array of objects: {e}") from None


def array(items: list[Fields]) -> Raw:
    return Raw(_encode(items))


def text(value: str) -> Raw:
    """A string as JSON."""
    return Raw(_encode(value))


def cannot(target: str, what: str, why: str = "") -> PoolError:
    """The error for what a backend cannot take."""
    return PoolError("bad_request", f"{target} cannot take {what}{': ' if why else ''}{why}")


def drop(parts: Fields, *names: str) -> None:
    for name in names:
        parts.pop(name, None)


def given(parts: Fields, *names: str) -> bool:
    """Whether one of the fields is there and not empty."""
    return any(name in parts and bytes(parts[name]).strip() not in _EMPTY for name in names)


# ---- the request inside ---------------------------------------------------------------------------------------------


def inner(surface: str, body: bytes) -> Fields:
    """The generate request of a "gl", "vx" or "ca" body, without what only its surface knows."""
    parts = fields(body)
    if surface == "ca":
        if "request" not in parts:
            raise PoolError("bad_request", "a Code Assist body has its request in `request`")
        parts = fields(parts["request"], "`request`")
        drop(parts, "session_id", "sessionId")
    drop(parts, "model")
    return parts


def counted(surface: str, body: bytes) -> Fields:
    """The generate request whose tokens are to be counted."""
    parts = fields(body)
    name = {"gl": ("generateContentRequest", "generate_content_request"), "ca": ("request",)}.get(surface, ())
    wrapper = next((n for n in name if n in parts), None)
    if surface == "ca" and wrapper is None:
        raise PoolError("bad_request", "a Code Assist body has its request in `request`")
    if wrapper is not None:
        parts = fields(parts[wrapper], f"`{wrapper}`")
    drop(parts, "model", "session_id", "sessionId")
    return parts


def only_contents(parts: Fields, target: str) -> Fields:
    """`parts`, if there is nothing in them but contents. Else refused: the count would be wrong."""
    more = [name for name in parts if name != "contents" and given(parts, name)]
    if more:
        raise cannot(target, f"`{more[0]}` in countTokens")
    return {"contents": parts["contents"]} if "contents" in parts else {}


# ---- history --------------------------------------------------------------------------------------------------------


def cleaned(parts: Fields, *, roles: bool) -> None:
    """Make the history of a request fit for a place where it was not written. `roles`: add missing ones."""
    if "contents" not in parts:
        return
    raw = bytes(parts["contents"])
    deep = any(mark in raw for mark in _NOTEWORTHY)
    if not deep and not roles:
        return
    try:
        contents = _objects.decode(raw)
    except UNREADABLE:
        return  # no list of objects: Google says so better than we could
    changed = [c for c in map(_content_cleaned, contents) if c is not None] if deep else contents
    if roles:
        for content in changed:
            if "role" not in content:
                content["role"] = _USER
    parts["contents"] = Raw(_encode(changed))


def cleaned_body(form: str, body: bytes) -> bytes | None:
    """A whole "gl", "vx" or "ca" body with its history cleaned: the remedy when Google calls a signature corrupted.

    None when there is nothing to clean.
    """
    if not any(mark in body for mark in (b"houghtSignature", b"hought_signature")):
        return None
    parts = fields(body)
    if form != "ca":
        cleaned(parts, roles=False)
        return join(parts)
    request = fields(parts["request"], "`request`")
    cleaned(request, roles=False)
    parts["request"] = Raw(join(request))
    return join(parts)


def _content_cleaned(content: Fields) -> Fields | None:
    """None when nothing but thoughts was in it."""
    if "parts" not in content:
        return content
    try:
        parts = _objects.decode(content["parts"])
    except UNREADABLE:
        return content
    kept = [_part_cleaned(p) for p in parts if bytes(p.get("thought", b"")).strip() != b"true"]
    if parts and not kept:
        return None
    content["parts"] = Raw(_encode(kept))
    return content


def _part_cleaned(part: Fields) -> Fields:
    drop(part, *_SIGNATURES)
    if any(name in part for name in _CALLS):
        part["thoughtSignature"] = _SENTINEL
    return part


# ---- what is bound to where it was made -------------------------------------------------------------------------------


class _File(msgspec.Struct):
    fileUri: str = ""  # noqa: N815 - Google's names
    file_uri: str = ""


class _Part(msgspec.Struct):
    fileData: _File | None = None  # noqa: N815
    file_data: _File | None = None


class _Content(msgspec.Struct):
    parts: list[_Part] = []


_files = msgspec.json.Decoder(list[_Content])


def file_uris(parts: Fields) -> Iterator[str]:
    """Every `fileUri` in the contents of a request."""
    raw = bytes(parts.get("contents", b""))
    if b"ileUri" not in raw and b"file_uri" not in raw:
        return
    try:
        contents = _files.decode(raw)
    except UNREADABLE:
        return
    for content in contents:
        for part in content.parts:
            for file in (part.fileData, part.file_data):
                if file is not None and (uri := file.fileUri or file.file_uri):
                    yield uri


def is_uploaded(uri: str) -> bool:
    """Whether `uri` is a file of the Developer API's, which only the project that uploaded it may read."""
    return uri.startswith("files/") or (
        "/files/" in uri and "generativelanguage" in uri.split("/files/", 1)[0]
    )


def refuse_bound(parts: Fields, target: str) -> None:
    """Refuse what only the account can use that made it: uploaded files, caches, search stores."""
    if given(parts, "cachedContent", "cached_content"):
        raise cannot(target, "`cachedContent`", "it belongs to the account that made it")
    if any(is_uploaded(uri) for uri in file_uris(parts)):
        raise cannot(target, "an uploaded file (`files/…`)", "it belongs to the account that uploaded it")
    tools = bytes(parts.get("tools", b""))
    if b'"fileSearch"' in tools or b'"file_search"' in tools:
        raise cannot(target, "the tool `fileSearch`", "its stores belong to the account that made them")


def refuse_vertex_only(parts: Fields, target: str) -> None:
    """Refuse what only Vertex (and Code Assist, which is built upon it) knows."""
    if given(parts, "labels"):
        raise cannot(target, "`labels`")
    if b'"method"' in bytes(parts.get("safetySettings", parts.get("safety_settings", b""))):
        raise cannot(target, "`safetySettings[].method`")
    if any(uri.startswith("gs://") for uri in file_uris(parts)):
        raise cannot(target, "a file in Cloud Storage (`gs://…`)")
    config = parts.get("generationConfig", parts.get("generation_config"))
    if config is not None and bytes(config).strip() != b"null":
        settings = fields(config, "`generationConfig`")
        for name in ("routingConfig", "modelSelectionConfig", "audioTimestamp"):
            if given(settings, name):
                raise cannot(target, f"`generationConfig.{name}`")


# ---- answers ----------------------------------------------------------------------------------------------------------


_NONE = Raw(b"null")


class _Envelope(msgspec.Struct):
    response: Raw = _NONE  # msgspec has no `Raw | None`
    traceId: str | None = None  # noqa: N815


class _Named(msgspec.Struct):
    responseId: str | None = None  # noqa: N815


_envelope = msgspec.json.Decoder(_Envelope)
_named = msgspec.json.Decoder(_Named)


def unwrapped(payload: bytes) -> bytes:
    """The answer inside a Code Assist one; b"" when it holds none. `traceId` serves as a missing `responseId`."""
    try:
        envelope = _envelope.decode(payload)
    except UNREADABLE:
        return payload
    if envelope.response == _NONE:
        return payload if b'"error"' in payload else b""
    answer = bytes(envelope.response)
    if not envelope.traceId or b'"responseId"' in answer or answer[:1] != b"{":
        return answer
    rest = answer[1:].lstrip()
    comma = b"" if rest[:1] == b"}" else b","
    return b'{"responseId":' + _encode(envelope.traceId) + comma + rest


def wrapped(payload: bytes) -> bytes:
    """An answer as Code Assist would wrap it. Its clients overwrite `responseId` with `traceId`, so that is there."""
    try:
        name = _named.decode(payload).responseId
    except UNREADABLE:
        return payload
    trace = b',"traceId":' + _encode(name) if name else b""
    return b'{"response":' + payload.strip() + trace + b"}"
