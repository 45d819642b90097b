"""What the Developer API keeps for a project: files with their resumable upload, caches, interactions, and plain resources.

Another project that asks is told what Google tells it: 403 for a file or cache, 404 for the rest.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from . import answers, identify, refusals, validate
from .call import Answer, Call, Place
from .envelope import Json, Refused, Reply, dumps, error
from .world import Caller, World

VERSIONS = frozenset({"v1beta", "v1", "v1alpha"})
PLAIN = frozenset(
    {"batches", "fileSearchStores", "agents", "triggers", "environments", "webhooks", "corpora"}
)
_CREATING = {"batchGenerateContent": "batches", "predictLongRunning": "operations"}
_HOST = "https://generativelanguage.googleapis.com"
_FILE = re.compile(r"files/([A-Za-z0-9-]+)")


@dataclass(slots=True)
class _Thing:
    project: str
    value: Json
    data: bytes = b""
    until: float = float("inf")


@dataclass(slots=True)
class _Upload:
    project: str
    described: Json
    mime: str
    size: int = -1
    data: bytearray = field(default_factory=bytearray)
    pieces: int = 0
    final: bool = False


class Kept:
    """`things` by name (`files/abc`), `uploads` by id. Bytes of an upload are kept up to `keep_bytes` and then counted only."""

    def __init__(self, world: World, base_url: Any) -> None:
        self._world = world
        self._base_url = base_url  # of this server, for upload addresses
        self._serial = count(1)
        self.things: dict[str, _Thing] = {}
        self.uploads: dict[str, _Upload] = {}

    def find(self, method: str, path: str) -> Place | None:
        segments = path.strip("/").split("/")
        if len(segments) > 2 and segments[0] == "upload" and segments[1] in VERSIONS:
            return Place("upload", "gl", self.upload, self._upload_who)
        if segments[0] == "download":
            segments = segments[1:]
        if len(segments) < 2 or segments[0] not in VERSIONS:
            return None
        collection, _, verb = segments[1].partition(":")
        if collection == "models" and len(segments) == 3:
            model, _, verb = segments[2].partition(":")
            if method == "POST" and verb in _CREATING:
                return Place(f"make-{verb}", "gl", self.start, self._who, model, {"verb": verb})
            return None
        if collection == "models" and len(segments) == 5 and segments[3] == "operations":
            return Place("operation", "gl", self.thing, self._who, params={"name": "/".join(segments[1:])})
        if collection not in PLAIN | {"files", "cachedContents", "interactions"}:
            return None
        if len(segments) == 2:
            handler = self.make if method == "POST" else self.listing
            return Place(collection, "gl", handler, self._who, params={"collection": collection})
        name, _, verb = segments[2].partition(":")
        params = {"name": f"{collection}/{name}", "verb": verb or "/".join(segments[3:])}
        return Place(collection, "gl", self.thing, self._who, params=params)

    def check_use(self, body: Json, project: str) -> None:
        """Refuse a generate request that names what another project has, as Google does."""
        for content in validate.get(body, "contents") or []:
            for part in content.get("parts") or []:
                uri = validate.get(validate.get(part, "fileData") or {}, "fileUri") or ""
                if (found := _FILE.search(uri)) and "gs://" not in uri:
                    self._owned(f"files/{found[1]}", project)
        if cache := validate.get(body, "cachedContent"):
            self._owned(str(cache), project)

    # ---- uploads -----------------------------------------------------------------------------------------------

    def upload(self, call: Call) -> Answer:
        known = self.uploads.get(call.query.get("upload_id", ""))
        if known is None:
            return self._start(call)
        commands = {c.strip() for c in call.headers.get("X-Goog-Upload-Command", "").split(",")}
        if "query" in commands:
            return self._status(known, b"")
        if int(call.headers.get("X-Goog-Upload-Offset", -1)) != len(known.data):
            raise Refused(error(400, "Upload offset does not match."))
        known.data += call.body
        known.pieces += 1
        if "finalize" not in commands:
            return self._status(known, b"")
        known.final = True
        thing = self._keep_file(known)
        return self._status(known, dumps({"file": thing.value}))

    def _start(self, call: Call) -> Answer:
        if "raw" in call.headers.get("X-Goog-Upload-Protocol", "") or call.query.get("uploadType") == "media":
            mime = call.headers.get("Content-Type", "application/octet-stream")
            whole = _Upload(self._project(call), {}, mime, data=bytearray(call.body), pieces=1, final=True)
            return Reply.json({"file": self._keep_file(whole).value})
        if "start" not in call.headers.get("X-Goog-Upload-Command", ""):
            raise Refused(error(404, "Upload not found."))
        described = validate.get(call.json(), "file") or {}
        upload_id = hashlib.sha256(f"fake-upload-{next(self._serial)}".encode()).hexdigest()
        mime = call.headers.get("X-Goog-Upload-Header-Content-Type", "application/octet-stream")
        self.uploads[upload_id] = _Upload(self._project(call), described, mime)
        url = f"{self._base_url()}{call.path}?upload_id={upload_id}&upload_protocol=resumable"
        headers = {
            "X-Goog-Upload-URL": url,
            "X-Goog-Upload-Status": "active",
            "X-Goog-Upload-Chunk-Granularity": "8388608",
        }
        return Reply(200, b"", headers=headers)

    @staticmethod
    def _status(upload: _Upload, body: bytes) -> Reply:
        status = "final" if upload.final else "active"
        return Reply(
            200,
            body,
            headers={"X-Goog-Upload-Status": status, "X-Goog-Upload-Size-Received": str(len(upload.data))},
        )

    def _keep_file(self, upload: _Upload) -> _Thing:
        name = f"files/fake{next(self._serial):06d}"
        digest = base64.b64encode(hashlib.sha256(upload.data).hexdigest().encode()).decode()
        until = self._world.clock.now() + 48 * 3600
        value = {
            "name": name, "displayName": validate.get(upload.described, "displayName") or "", "mimeType": upload.mime,
            "sizeBytes": str(len(upload.data)), "createTime": self._stamp(0), "updateTime": self._stamp(0),
            "expirationTime": self._stamp(48 * 3600), "sha256Hash": digest, "uri": f"{_HOST}/v1beta/{name}",
            "state": "ACTIVE", "source": "UPLOADED",
        }  # fmt: skip
        thing = self.things[name] = _Thing(upload.project, value, bytes(upload.data), until)
        return thing

    # ---- resources -----------------------------------------------------------------------------------------------

    def make(self, call: Call) -> Answer:
        collection = call.place.params["collection"] if call.place else ""
        body, project = call.json(), self._project(call)
        if collection == "interactions":
            return self._interaction(call, body, project)
        name = f"{collection}/fake{next(self._serial):06d}"
        value: Json = {"name": name, **body}
        until = float("inf")
        if collection == "cachedContents":
            life_s = float(str(validate.get(body, "ttl") or "3600s").rstrip("s"))
            until = self._world.clock.now() + life_s
            value = {
                "name": name, "model": body.get("model", ""), "createTime": self._stamp(0), "updateTime": self._stamp(0),
                "expireTime": self._stamp(life_s), "usageMetadata": {"totalTokenCount": answers.count_tokens(body)},
            }  # fmt: skip
        self.things[name] = _Thing(project, value, until=until)
        return Reply.json(value)

    def start(self, call: Call) -> Answer:
        """A batch or an operation of a model."""
        verb = call.place.params["verb"] if call.place else ""
        name = f"{_CREATING[verb]}/fake{next(self._serial):06d}"
        if verb == "predictLongRunning":
            name = f"models/{call.model}/{name}"
        self.things[name] = _Thing(self._project(call), {"name": name, "done": False})
        return Reply.json(self.things[name].value)

    def listing(self, call: Call) -> Answer:
        collection = call.place.params["collection"] if call.place else ""
        project = self._project(call)
        own = [
            t.value
            for n, t in sorted(self.things.items())
            if n.startswith(f"{collection}/") and t.project == project
        ]
        size = validate.number(call.query.get("pageSize"), 10)
        begin = validate.number(call.query.get("pageToken"), 0)
        page: Json = {collection: own[begin : begin + size]} if own[begin : begin + size] else {}
        return Reply.json(page | ({"nextPageToken": str(begin + size)} if begin + size < len(own) else {}))

    def thing(self, call: Call) -> Answer:
        params = call.place.params if call.place else {}
        name, verb = params["name"], params.get("verb", "")
        thing = self._owned(name, self._project(call))
        if call.method == "DELETE":
            del self.things[name]
            return Reply.json({})
        if verb == "download":
            return Reply(200, thing.data, "application/octet-stream")
        if verb == "cancel":
            thing.value["status"] = "cancelled"
        if call.method == "PATCH":
            thing.value.update(call.json())
        return Reply.json(thing.value)

    def _interaction(self, call: Call, body: Json, project: str) -> Answer:
        if previous := body.get("previous_interaction_id"):
            self._owned(f"interactions/{previous}", project)
        ident = f"int_fake{next(self._serial):06d}"
        who = call.caller.name if call.caller else "nobody"
        text = f"{who} — you said: {body.get('input')}"
        value: Json = {
            "id": ident, "object": "interaction", "status": "completed", "model": body.get("model", ""),
            "steps": [{"type": "model_output", "content": [{"type": "text", "text": text}]}],
            "usage": {"total_input_tokens": 1, "total_output_tokens": 2, "total_tokens": 3},
            "created": self._stamp(0), "updated": self._stamp(0),
        }  # fmt: skip
        if body.get("store", True):
            self.things[f"interactions/{ident}"] = _Thing(project, value)
        if not body.get("stream"):
            return Reply.json(value)
        begun = {**value, "status": "in_progress", "steps": []}
        events: list[Json] = [
            {"event_type": "interaction.created", "interaction": begun},
            {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": text}},
        ]
        if "[[cut]]" not in str(body.get("input")):
            events.append({"event_type": "interaction.completed", "interaction": value})
        stream = b"".join(
            b"event: "
            + str(e["event_type"]).encode()
            + b"\ndata: "
            + dumps({**e, "event_id": f"e{n}"})
            + b"\n\n"
            for n, e in enumerate(events)
        )
        return Reply(200, stream, "text/event-stream")

    def _owned(self, name: str, project: str) -> _Thing:
        thing = self.things.get(name)
        if thing is not None and thing.project == project and thing.until > self._world.clock.now():
            return thing
        kind, _, ident = name.partition("/")
        if kind == "files":
            raise Refused(
                error(403, f"You do not have permission to access the File {ident} or it may not exist.")
            )
        if kind == "cachedContents":
            raise Refused(error(403, "CachedContent not found (or permission denied)"))
        raise Refused(error(404, f"Requested entity was not found: {name}"))

    def _who(self, call: Call) -> Caller:
        return identify.developer(self._world, call)

    def _upload_who(self, call: Call) -> Caller | None:
        """The address of an upload is its own key."""
        return None if call.query.get("upload_id") in self.uploads else self._who(call)

    def _project(self, call: Call) -> str:
        if call.caller is None:
            raise Refused(refusals.unregistered_caller())
        return call.caller.project or identify.check_user_project(call, call.caller, "")

    def _stamp(self, later_s: float) -> str:
        at = datetime.fromtimestamp(self._world.clock.now() + later_s, UTC)
        return at.strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"
