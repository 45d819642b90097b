"""What Vertex keeps for a project in a location: context caches, batch jobs, operations of long predictions.

Names are whole paths with the project's number, as Google writes them; a request may say the project's id as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count

from . import answers, identify, refusals, validate
from .call import Answer, Call, Place
from .envelope import Json, Refused, Reply, error
from .throttle import VX_SERVICE
from .world import Caller, Project, World

COLLECTIONS = frozenset({"cachedContents", "batchPredictionJobs", "operations"})
_PATH = re.compile(r"/(?:v1|v1beta1)/projects/([^/]+)/locations/([^/]+)/([A-Za-z]+)(?:/([^/:]+))?(?::(\w+))?")
_MODEL = re.compile(
    r"/(?:v1|v1beta1)/projects/([^/]+)/locations/([^/]+)/publishers/google/models/([^/:]+):(\w+)"
)
_LONG = {"predictLongRunning": "make-operation", "fetchPredictOperation": "operation"}
_NAMED = re.compile(r"projects/([^/]+)/locations/([^/]+)/publishers/google/models/([^/]+)")


@dataclass(slots=True)
class _Thing:
    value: Json
    until: float


class VertexKept:
    """`things` by name, the project as its number."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._serial = count(1)
        self.things: dict[str, _Thing] = {}

    def find(self, method: str, path: str) -> Place | None:
        if (found := _MODEL.fullmatch(path)) and found[4] in _LONG and method == "POST":
            params = {"project": found[1], "location": found[2]}
            handler = self.start if found[4] == "predictLongRunning" else self.fetch
            return Place(_LONG[found[4]], "vx", handler, self._who, found[3], params)
        found = _PATH.fullmatch(path)
        if found is None or found[3] not in COLLECTIONS:
            return None
        project, location, collection, name, verb = found.groups()
        params = {
            "project": project, "location": location, "collection": collection, "name": name or "", "verb": verb or "",
        }  # fmt: skip
        if name:
            return Place(collection, "vx", self.thing, self._who, params=params)
        return Place(
            collection, "vx", self.make if method == "POST" else self.listing, self._who, params=params
        )

    def check_use(self, body: Json, place: Project, location: str) -> None:
        """Refuse a generate request that names a cache of elsewhere."""
        if name := validate.get(body, "cachedContent"):
            self._owned(str(name).rpartition("/")[2], "cachedContents", place, location)

    def make(self, call: Call) -> Answer:
        project, location, collection = self._where(call)
        body = call.json()
        model = _NAMED.fullmatch(str(body.get("model", "")))
        if model is None or model[1] not in (project.id, project.number) or model[2] != location:
            raise Refused(error(400, f"Invalid model name: {body.get('model')!r} in {project.id}/{location}"))
        value: Json = {"displayName": validate.get(body, "displayName") or "", "model": body["model"]}
        until = float("inf")
        if collection == "cachedContents":
            life_s = float(str(validate.get(body, "ttl") or "3600s").rstrip("s"))
            until = self._world.clock.now() + life_s
            value |= {
                "createTime": self._stamp(0), "updateTime": self._stamp(0), "expireTime": self._stamp(life_s),
                "usageMetadata": {"totalTokenCount": answers.count_tokens(body)},
            }  # fmt: skip
        else:
            value |= {"state": "JOB_STATE_PENDING"}
        return Reply.json(self._keep(f"{_parent(project, location)}/{collection}", value, until))

    def listing(self, call: Call) -> Answer:
        project, location, collection = self._where(call)
        parent = f"{_parent(project, location)}/{collection}/"
        own = [thing.value for name, thing in sorted(self.things.items()) if name.startswith(parent)]
        return Reply.json({collection: own} if own else {})

    def thing(self, call: Call) -> Answer:
        project, location, collection = self._where(call)
        params = call.place.params if call.place else {}
        thing = self._owned(params["name"], collection, project, location)
        if call.method == "DELETE":
            del self.things[str(thing.value["name"])]
            return Reply.json({})
        if call.method == "PATCH":
            thing.value.update(call.json())
        if params["verb"] == "cancel":
            thing.value["state"] = "JOB_STATE_CANCELLING"
        return Reply.json(thing.value)

    def start(self, call: Call) -> Answer:
        project, location, _ = self._where(call)
        parent = f"{_parent(project, location)}/publishers/google/models/{call.model}/operations"
        kept = self._keep(parent, {"done": False}, float("inf"))
        return Reply.json({"name": kept["name"]})

    def fetch(self, call: Call) -> Answer:
        self._where(call)
        thing = self.things.get(str(call.json().get("operationName", "")))
        if thing is None:
            raise Refused(error(404, "Operation not found."))
        return Reply.json(thing.value | {"done": True})

    def _keep(self, parent: str, value: Json, until: float) -> Json:
        name = f"{parent}/{next(self._serial) + 4_000_000_000_000_000_000}"
        self.things[name] = _Thing({"name": name, **value}, until)
        return self.things[name].value

    def _owned(self, ident: str, collection: str, project: Project, location: str) -> _Thing:
        name = f"{_parent(project, location)}/{collection}/{ident}"
        thing = self.things.get(name)
        if thing is None or thing.until <= self._world.clock.now():
            raise Refused(error(404, f"Not found: cached content metadata for {ident}."))
        return thing

    def _where(self, call: Call) -> tuple[Project, str, str]:
        params = call.place.params if call.place else {}
        project = next(
            (p for p in self._world.projects.values() if params["project"] in (p.id, p.number)), None
        )
        if call.caller is None or project is None or project.id not in call.caller.projects:
            resource = f"//{VX_SERVICE}/projects/{params['project']}"
            raise Refused(refusals.permission_denied("aiplatform.cachedContents.get", resource))
        return project, params["location"], params.get("collection", "")

    def _who(self, call: Call) -> Caller:
        return identify.cloud(self._world, call)

    def _stamp(self, later_s: float) -> str:
        at = datetime.fromtimestamp(self._world.clock.now() + later_s, UTC)
        return at.strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"


def _parent(project: Project, location: str) -> str:
    return f"projects/{project.number}/locations/{location}"
