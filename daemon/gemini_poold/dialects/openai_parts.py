"""The parts of an OpenAI message -> parts of the Gemini API: text, images, sound, files.

Nothing is fetched: what lies at a URL must be a file that Google itself can read, else the request is refused.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from mimetypes import guess_type
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from .reading import Json, Reader, refused

_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*),", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]*={0,2}\s*")
_SOUND = {
    "wav": "audio/wav",
    "mp3": "audio/mp3",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "aac": "audio/aac",
}
_GOOGLE_FILES = "generativelanguage.googleapis.com"
_VIDEO_HOSTS = frozenset({"www.youtube.com", "youtube.com", "youtu.be"})

# Hints about price or caching that change nothing in what is said.
IGNORED = ("cache_control", "annotations", "logprobs")


def parts(content: Any, where: str) -> list[Json]:
    """A message's content: a string or a list of parts."""
    if isinstance(content, str):
        return [{"text": content}]
    if not isinstance(content, list):
        raise refused(f"`{where}` must be a string or an array of parts")
    return [_part(Reader(item, f"{where}[{index}]")) for index, item in enumerate(content)]


def texts(content: Any, where: str) -> list[Json]:
    """The same where Gemini takes text alone."""
    found = parts(content, where)
    if any("text" not in part for part in found):
        raise refused(f"`{where}` cannot be carried over to Gemini", "only text can stand there")
    return found


def _part(reader: Reader) -> Json:
    kind = reader.text("type")
    reader.ignore(IGNORED)
    make = _KINDS.get(kind)
    if make is None:
        raise refused(f"`{reader.path('type')}` {kind[:40]!r} cannot be carried over to Gemini")
    part = make(reader)
    reader.done()
    return part


def _text(reader: Reader) -> Json:
    return {"text": reader.text("text")}


def _refusal(reader: Reader) -> Json:
    return {"text": reader.text("refusal")}


def _image(reader: Reader) -> Json:
    """Chat's `{image_url: {url, detail}}`, a plain string, and the Responses API's `image_url` or `file_id`."""
    value = reader.take("image_url")
    reader.ignore(("detail",))
    where = reader.path("image_url")
    if isinstance(value, dict):
        inner = Reader(value, where)
        url = inner.text("url")
        inner.ignore(("detail", "format"))
        inner.done()
    elif isinstance(value, str):
        url = value
    else:
        url = reader.text("file_id")
        where = reader.path("file_id")
    return at_url(url, where, "image/jpeg")


def _sound(reader: Reader) -> Json:
    inner = reader.inner("input_audio")
    if inner is None:
        raise reader.wrong("input_audio", "must be an object")
    form = inner.text("format")
    mime = _SOUND.get(form)
    if mime is None:
        raise inner.wrong("format", f"must be one of {', '.join(_SOUND)}")
    data = inner.text("data")
    inner.done()
    return _inline(mime, data, reader.path("input_audio.data"))


def _file(reader: Reader) -> Json:
    """Chat's `{file: {…}}` and the Responses API's same fields without the wrapper."""
    inner = reader.inner("file") or reader
    name = inner.text("filename", "")
    mime = guess_type(name)[0] or ""
    data, url = inner.take("file_data"), inner.take("file_url")
    uri = inner.take("file_id") if url is None else url
    if inner is not reader:
        mime = inner.text("format", mime)
        inner.done()
    if isinstance(data, str):
        if data.startswith("data:"):
            return at_url(data, inner.path("file_data"), mime)
        return _inline(mime or "application/pdf", data, inner.path("file_data"))
    if not isinstance(uri, str):
        raise refused(f"`{inner.path('file_data')}` or `file_id` must be a string")
    return at_url(uri, inner.path("file_id" if url is None else "file_url"), mime)


def at_url(url: str, where: str, mime: str = "") -> Json:
    """What a URL names: its own data, or a file at Google's. `mime`: where neither the URL nor its ending tells."""
    if url.startswith("data:"):
        return _data(url, where, mime)
    if _is_google_file(url):
        part: Json = {"fileUri": url}
        kind = guess_type(urlsplit(url).path)[0] or ("" if "/files/" in url else mime)
        return {"fileData": {"mimeType": kind, **part} if kind else part}
    if url.startswith(("http://", "https://")):
        raise refused(
            f"`{where}` cannot be carried over",
            "nothing is fetched from the web: send the data as a data: URL",
        )
    raise refused(f"`{where}` cannot be carried over", "it is neither a data: URL nor a file of Google's")


def _is_google_file(url: str) -> bool:
    try:
        found = urlsplit(url)
    except ValueError:
        return False
    if found.scheme == "gs":
        return True
    host = found.hostname or ""
    return found.scheme == "https" and (
        (host == _GOOGLE_FILES and "/files/" in found.path) or host in _VIDEO_HOSTS
    )


def _data(url: str, where: str, mime: str) -> Json:
    found = _DATA_URL.match(url)
    if found is None:
        raise refused(f"`{where}` is no data: URL")
    data, kind = url[found.end() :], found[1] or mime or "text/plain"
    if ";base64" in found[2].lower():
        return _inline(kind, data, where)
    return _inline(kind, base64.b64encode(unquote_to_bytes(data)).decode(), where)


def _inline(mime: str, data: str, where: str) -> Json:
    if _BASE64.fullmatch(data) is None:
        raise refused(f"`{where}` is not base64")
    return {"inlineData": {"mimeType": mime, "data": data}}


_KINDS: Mapping[str, Callable[[Reader], Json]] = {
    "text": _text,
    "input_text": _text,
    "output_text": _text,
    "refusal": _refusal,
    "image_url": _image,
    "input_image": _image,
    "input_audio": _sound,
    "file": _file,
    "input_file": _file,
}
