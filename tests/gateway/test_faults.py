"""The fault matrix: what goes wrong at Google, and what the client of each surface saw of it.

`pytest -s tests/gateway/test_faults.py` prints it. In no cell may a cut answer look whole, or a piece come twice.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.fakes.gateway import KEY, gateway_site
from tests.runtime.rig import MODEL, rig_of

from gemini_poold.config import Gateway
from gemini_poold.core.model import Backend
from gemini_poold.fake import Fault, Match, Twist, replies
from gemini_poold.gateway.routes import route

CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "hello — ünïcödé, you"}]}]}
WRAPPED = {"model": MODEL, "project": "p", "user_prompt_id": "u", "request": CONTENTS}
CHAT = {
    "model": MODEL,
    "messages": [{"role": "user", "content": CONTENTS["contents"][0]["parts"][0]["text"]}],
}
LIMITS = Gateway(connect_timeout_s=2, first_byte_timeout_s=0.15, silence_timeout_s=0.15)


@dataclass(frozen=True)
class Client:
    """How a client asks. `own`: the account whose backend speaks the client's language."""

    name: str
    path: str
    body: Any
    own: str
    dress: str  # sse, array, whole


_GL = f"/v1beta/models/{MODEL}:"
_VX = f"/v1/projects/p/locations/l/publishers/google/models/{MODEL}:"
CLIENTS = [
    Client("gl sse", _GL + "streamGenerateContent?alt=sse", CONTENTS, "key-a", "sse"),
    Client("gl array", _GL + "streamGenerateContent", CONTENTS, "key-a", "array"),
    Client("gl whole", _GL + "generateContent", CONTENTS, "key-a", "whole"),
    Client("ca sse", "/v1internal:streamGenerateContent?alt=sse", WRAPPED, "user-a", "sse"),
    Client("ca whole", "/v1internal:generateContent", WRAPPED, "user-a", "whole"),
    Client("vx sse", _VX + "streamGenerateContent?alt=sse", CONTENTS, "robot-a", "sse"),
    Client("vx array", _VX + "streamGenerateContent", CONTENTS, "robot-a", "array"),
    Client("vx whole", _VX + "generateContent", CONTENTS, "robot-a", "whole"),
    Client("openai sse", "/v1/chat/completions", {**CHAT, "stream": True}, "user-a", "sse"),
    Client("openai whole", "/v1/chat/completions", CHAT, "robot-a", "whole"),
]
CLIENTS = [
    c for c in CLIENTS if "_unserved" not in route("POST", c.path.partition("?")[0]).handler.__qualname__
]
OTHER = {"key-a": "user-z", "user-a": "key-z", "robot-a": "key-z"}  # who is next: always another backend

REFUSED = "refused"  # the port is closed: no fault of the fake's
PAUSE = 0.01  # between good events and what breaks, so that they do not come in one packet


def late(fault: Fault) -> Fault:
    """The same, after the events before it went out."""
    twist = fault.twist
    place = next(p for p in (twist.break_at, twist.error_at, 1) if p)
    return replace(fault, twist=replace(twist, pause_at=place, pause_s=PAUSE))


@dataclass(frozen=True)
class Row:
    """One fault. `stream`, `whole`: what a client may see of it: whole, cut or told (an error before any answer)."""

    name: str
    fault: Any
    stream: str = "whole"
    whole: str = "whole"
    on: tuple[str, ...] = ("key-a", "user-a", "robot-a")


KEYS, USERS = ("key-a",), ("user-a",)
ROWS = [
    Row("connection refused", REFUSED),
    Row("reset before headers", Fault.reset_connection("before_headers")),
    Row("reset after headers", Fault.reset_connection("after_headers")),
    Row("reset in the middle", late(Fault.cut(2, "rst")), "cut"),
    Row("reset inside a chunk", late(Fault.cut(2, "torn")), "cut"),
    Row("closed in the middle", late(Fault.cut(2, "fin")), "cut"),
    Row("ended in the middle", late(Fault.cut(2, "clean")), "cut", "whole"),
    Row("silence from the start", Fault.silence()),
    Row("silence in the middle", Fault.stall(2), "cut"),
    Row("split UTF-8", Fault.styled(Twist(split=-1))),
    Row("split lines", Fault.styled(Twist(split=-2, eol="\r\n"))),
    Row("LF, comments, several lines", Fault.styled(Twist(eol="\n", comments=True, multi_line=True))),
    Row("error event first", Fault.error_event(0)),
    Row("bare error first", Fault.error_event(0, dress="bare")),
    Row("error event in the middle", late(Fault.error_event(2)), "cut"),
    Row("bare error in the middle", late(Fault.error_event(2, dress="bare")), "cut"),
    Row("end without finish", late(Fault.no_finish()), "cut", "whole"),
    Row("empty, once", Fault.cut(0, "clean")),
    Row("stopped for safety", Fault.finish("SAFETY"), "stopped", "stopped"),
    Row("prompt blocked", Fault.blocked("SAFETY"), "stopped", "stopped"),
    Row("no JSON", Fault.status(200, body="<html>hello</html>")),
    Row("401 once", Fault.status(401, body=replies.unauthenticated())),
    Row("429 with RetryInfo", Fault.status(429, body=replies.rate_limited("30s"))),
    Row("429 of the day", Fault.status(429, body=replies.gl_quota("rpd", 250, model=MODEL, retry="44s")), on=KEYS),
    Row("500", Fault.status(500, body=replies.internal())),
    Row("503", Fault.status(503, body=replies.overloaded())),
    Row("502, a page", Fault.status(502, body="<html>bad gateway</html>")),
    Row("400, the client's", Fault.status(400, body=replies.invalid_argument("Wrong, dear client")), "told", "told"),
    *(
        Row(f"403 {name}", Fault.status(403, body=body), on=on)
        for name, body, on in [
            ("permission denied", replies.permission_denied(), ("key-a", "user-a", "robot-a")),
            ("service disabled", replies.service_disabled(), ("key-a", "user-a", "robot-a")),
            ("billing disabled", replies.billing_disabled(), ("key-a", "robot-a")),
            ("consumer invalid", replies.consumer_invalid(), ("user-a", "robot-a")),
            ("user project denied", replies.user_project_denied(), ("user-a", "robot-a")),
            ("security policy", replies.security_policy(), ("user-a", "robot-a")),
            ("unregistered caller", replies.unregistered_caller(), KEYS),
            ("key blocked", replies.api_key_blocked(), KEYS),
            ("key leaked", replies.key_leaked(), KEYS),
            ("project denied", replies.project_denied(), KEYS),
            ("subscription required", replies.subscription_required(), USERS),
            ("validation required", replies.validation_required(), USERS),
            ("terms violated", replies.tos_violation(), USERS),
            ("terms violated, old words", replies.tos_violation_old(), USERS),
        ]
    ),
]  # fmt: skip
seen: dict[str, dict[str, str]] = {}


@dataclass
class Saw:
    """An answer as it came over the socket."""

    status: int
    head: bytes
    body: bytes
    ended: bool  # properly: the last chunk, or all of the length
    pieces: list[bytes] = field(default_factory=list)


async def saw(port: int, client: Client) -> Saw:
    """Ask as `client` does; nothing between us and the bytes."""
    body = json.dumps(client.body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST {client.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split()[1])
        if b"content-length:" in head:
            length = int(head.partition(b"content-length:")[2].split()[0])
            return Saw(status, head, await reader.readexactly(length), ended=True)
        pieces = []
        try:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                pieces.append((await reader.readexactly(size + 2))[:-2])
            return Saw(status, head, b"".join(pieces), ended=True, pieces=pieces)
        except (asyncio.IncompleteReadError, ConnectionError):
            return Saw(status, head, b"".join(pieces), ended=False, pieces=pieces)
    finally:
        writer.close()


def events_of(client: Client, body: bytes) -> list[Any]:
    if client.dress == "whole":
        return [json.loads(body)]
    if client.dress == "array":
        return json.loads(body.rstrip(b",\r\n").removesuffix(b"]") + b"]") if body else []
    found = [e for e in body.replace(b"\r\n", b"\n").split(b"\n\n") if e.strip() and e != b"data: [DONE]"]
    assert all(e.startswith(b"data: ") for e in found), found
    return [json.loads(e[6:]) for e in found]


def text_and_finish(events: list[Any]) -> tuple[str, str]:
    """The text of an answer's events, and the reason of its end."""
    text, finish = "", ""
    for event in events:
        event = event.get("response", event)
        if feedback := event.get("promptFeedback"):
            finish = feedback["blockReason"]
        for candidate in event.get("candidates", ()):
            text += "".join(p.get("text", "") for p in candidate.get("content", {}).get("parts", ()))
            finish = candidate.get("finishReason", finish)
        for choice in event.get("choices", ()):
            text += (choice.get("delta") or choice.get("message") or {}).get("content") or ""
            finish = choice.get("finish_reason") or finish
    return text, finish


def judged(client: Client, got: Saw, texts: dict[str, str]) -> tuple[str, str]:
    """What the client saw, as a verdict and as a word for the matrix. Fails where an answer lies."""
    if got.status != 200:
        value = json.loads(got.body)
        error = (value[0] if client.dress == "array" else value)["error"]
        assert error["message"]
        assert got.status != 401
        return "told", f"told {got.status}"
    account = got.head.partition(b"x-gemini-pool-account:")[2].split()[0].decode()
    attempts = got.head.partition(b"x-gemini-pool-attempts:")[2].split()[0].decode()
    if got.ended:
        events = events_of(client, got.body)
        assert not any("error" in event for event in events), "an error inside an answer that looks whole"
        text, finish = text_and_finish(events)
        assert finish, "a cut answer that looks whole"
        if finish.lower() in {"safety", "content_filter"}:
            return "stopped", "stopped"
        assert text == texts[account], "a cut answer that looks whole, or a piece that came twice"
        return "whole", f"whole, {account} ({attempts})"
    last = got.pieces.pop()
    assert json.loads(last)["error"]["message"]
    good = b"".join(got.pieces)
    text, finish = text_and_finish(events_of(client, good))
    assert not finish
    assert text
    assert texts[account].startswith(text), "a piece that came twice, or none of this answer's"
    return "cut", f"cut after {len(text)} of {len(texts[account])}, {account} ({attempts})"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_what_the_client_saw(row: Row) -> None:
    """Every surface in every dress: absorbed before the first byte, broken off after it, never passed off as whole."""
    for client in CLIENTS:
        if client.own not in row.on:
            continue
        async with (
            rig_of(client.own, OTHER[client.own], limits=LIMITS) as rig,
            gateway_site(dispatcher=rig.dispatcher) as site,
        ):
            texts = {}
            for account in (client.own, OTHER[client.own]):
                asked = rig.call(CONTENTS, surface="gl", pin=account)
                texts[account] = text_and_finish([json.loads((await rig.dispatcher.unary(asked)).body)])[0]
            if row.fault == REFUSED:
                backend = rig.backends[rig.pool.members[client.own].account.backend]
                assert isinstance(backend.name, Backend)
                backend._base = "http://127.0.0.1:9"
            else:
                rig.fake.faults.add(row.fault, when=Match(credential=client.own), times=1)
            got = await saw(site.port, client)
            verdict, words = judged(client, got, texts)
            seen.setdefault(row.name, {})[client.name] = words
            wanted = row.whole if client.dress == "whole" else row.stream
            assert verdict == wanted, (client.name, row.name, words, got.body[-300:])


def test_the_matrix() -> None:
    """Printed: a line a fault, a column a client."""
    for name, cells in seen.items():
        print(f"\n{name}")
        for client, words in cells.items():
            print(f"    {client:14}{words}")
