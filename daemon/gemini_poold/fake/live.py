"""The Live API: a conversation over a WebSocket, in texts. It answers each turn, and gives handles to resume by.

`closings` are codes and reasons with which the next set-ups are closed instead of completed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count
from typing import Any

from aiohttp import WSMsgType, web

from . import identify, validate
from .call import Answer, Call, Place
from .envelope import Json, Reply, dumps, loads
from .world import Caller, World

_GL = re.compile(
    r"/ws/google\.ai\.generativelanguage\.v1(?:alpha|beta)?\.GenerativeService\.BidiGenerateContent"
)
_VX = re.compile(r"/ws/google\.cloud\.aiplatform\.v1(?:beta1)?\.LlmBidiService/BidiGenerateContent")


class Live:
    def __init__(self, world: World) -> None:
        self._world = world
        self._serial = count(1)
        self._handles: dict[str, str] = {}  # handle -> caller's name
        self.closings: list[tuple[int, str]] = []
        self.closed: list[int | None] = []  # codes with which clients ended

    def find(self, method: str, path: str) -> Place | None:
        if method == "GET" and _GL.fullmatch(path):
            return Place("live", "gl", self.refuse, self._developer)
        if method == "GET" and _VX.fullmatch(path):
            return Place("live", "vx", self.refuse, self._cloud)
        return None

    @staticmethod
    def refuse(_call: Call) -> Answer:
        return Reply(400, b"", "text/plain")  # no WebSocket

    async def serve(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        response = web.WebSocketResponse(max_msg_size=32 << 20)
        await response.prepare(request)
        call.status = 101
        setup = loads((await response.receive()).data)["setup"]
        call.body = dumps(setup)
        if problem := self._problem(call, setup):
            await response.close(code=problem[0], message=problem[1].encode())
            return response
        await response.send_bytes(dumps({"setupComplete": {}}))
        who = call.caller.name if call.caller else "nobody"
        if "sessionResumption" in setup:
            await self._tell_handle(response, who)
        async for message in response:
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                break
            if text := _text(loads(message.data)):
                await self._turn(response, who, text)
        self.closed.append(response.close_code)
        return response

    def _problem(self, call: Call, setup: Mapping[str, Any]) -> tuple[int, str] | None:
        if self.closings:
            return self.closings.pop(0)
        name = str(setup.get("model", ""))
        if self._world.model(name.rpartition("models/")[2]) is None:
            return (
                1008,
                f"{name} is not found for API version v1beta, or is not supported for bidiGenerateContent.",
            )
        handle = (setup.get("sessionResumption") or {}).get("handle")
        if handle and self._handles.get(handle) != (call.caller.name if call.caller else ""):
            return 1008, "BidiGenerateContent session not found"
        return None

    async def _turn(self, response: web.WebSocketResponse, who: str, text: str) -> None:
        if "[[break]]" in text and (transport := getattr(response, "_req").transport):  # noqa: B009
            transport.abort()
            return
        for part in (f"{who} — ", f"you said: {text}"):
            content: Json = {"modelTurn": {"role": "model", "parts": [{"text": part}]}}
            await response.send_bytes(dumps({"serverContent": content}))
        usage = {"promptTokenCount": len(text), "responseTokenCount": 2, "totalTokenCount": len(text) + 2}
        await response.send_bytes(dumps({"serverContent": {"turnComplete": True}, "usageMetadata": usage}))
        if "[[goodbye]]" in text:
            await response.close(code=1008, message=b"The session is over.")

    async def _tell_handle(self, response: web.WebSocketResponse, who: str) -> None:
        handle = f"fake-handle-{next(self._serial)}"
        self._handles[handle] = who
        told: Json = {"sessionResumptionUpdate": {"newHandle": handle, "resumable": True}}
        await response.send_bytes(dumps(told))

    def _developer(self, call: Call) -> Caller:
        return identify.developer(self._world, call)

    def _cloud(self, call: Call) -> Caller:
        return identify.cloud(self._world, call)


def _text(value: Any) -> str:
    turns = validate.get(validate.get(value, "clientContent") or {}, "turns") or []
    said = " ".join(str(part.get("text", "")) for turn in turns for part in turn.get("parts") or [])
    return said or str(validate.get(validate.get(value, "realtimeInput") or {}, "text") or "")
