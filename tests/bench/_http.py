"""Both ends of an HTTP benchmark, as lean as asyncio allows, so that what stands between them is what is measured:
an upstream that answers like the Developer API, and a load generator. Neither parses more than it must.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import dataclass

MODEL = "gemini-2.5-flash"
EVENTS = 200
PLAIN_PATH = f"/v1beta/models/{MODEL}:generateContent"
STREAM_PATH = f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
# Another surface's: each event is taken apart and written anew.
TRANSLATED_PATH = "/v1internal:streamGenerateContent?alt=sse"
SLOW_MODEL, SLOW_EVENTS = "gemini-slow", 60  # an event a second
SLOW_PATH = f"/v1beta/models/{SLOW_MODEL}:streamGenerateContent?alt=sse"
PATHS = {"plain": PLAIN_PATH, "stream": STREAM_PATH, "translated": TRANSLATED_PATH}
BODY = json.dumps({"contents": [{"role": "user", "parts": [{"text": "tell me " * 60}]}]}).encode()

WRAPPED = b'{"model":"%s","project":"p","user_prompt_id":"u","request":%s}' % (MODEL.encode(), BODY)


def _candidate(text: str, finish: str = "") -> bytes:
    candidate = {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}}
    if finish:
        candidate["finishReason"] = finish
    usage = {"promptTokenCount": 120, "candidatesTokenCount": 40, "totalTokenCount": 160}
    value = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": MODEL, "responseId": "r1"}
    return json.dumps(value).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nServer: bench\r\n"
_WHOLE = _candidate("word " * 150, "STOP")
PLAIN_REPLY = _HEAD % b"application/json" + b"Content-Length: %d\r\n\r\n" % len(_WHOLE) + _WHOLE
_FILE = b'{"file":{"name":"files/a-b-c"}}'
UPLOADED = _HEAD % b"application/json" + b"Content-Length: %d\r\n\r\n" % len(_FILE) + _FILE
STREAM_HEAD = _HEAD % b"text/event-stream" + b"Transfer-Encoding: chunked\r\n\r\n"
_EVENT = _chunk(b"data: " + _candidate("a few words of an answer ") + b"\r\n\r\n")
_LAST_EVENT = _chunk(b"data: " + _candidate("done", "STOP") + b"\r\n\r\n")
_END = b"0\r\n\r\n"


class _Upstream(asyncio.Protocol):
    """Answers each request by its path; each event of a stream is a write of its own."""

    def __init__(self) -> None:
        self._buffer = b""
        self._skip = 0
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._skip:  # the rest of an upload
            self._skip = max(0, self._skip - len(data))
            if not self._skip:
                self._transport.write(UPLOADED)
            return
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if length > 1 << 20:
            self._skip, self._buffer = length - (len(self._buffer) - end - 4), b""
            return
        if len(self._buffer) < end + 4 + length:
            return
        self._buffer = self._buffer[end + 4 + length :]
        if b":streamgeneratecontent" in head[:200]:
            self._transport.write(STREAM_HEAD)
            if SLOW_MODEL.encode() in head[:200]:
                self._slow(SLOW_EVENTS)
            else:
                self._loop.call_soon(self._event, EVENTS)
        elif b":generatecontent" in head[:200]:
            self._transport.write(PLAIN_REPLY)
        else:  # the daemon asks for a list of models now and then
            self._transport.write(_HEAD % b"application/json" + b"Content-Length: 2\r\n\r\n{}")

    def _event(self, left: int) -> None:
        if left > 1:
            self._transport.write(_EVENT)
            self._loop.call_soon(self._event, left - 1)
        else:
            self._transport.write(_LAST_EVENT + _END)

    def _slow(self, left: int) -> None:
        if self._transport.is_closing():
            return
        if left > 1:
            self._transport.write(_EVENT)
            self._loop.call_later(1.0, self._slow, left - 1)
        else:
            self._transport.write(_LAST_EVENT + _END)


@dataclass
class Load:
    """What a round of load came to. `first_byte_ms`: the 99th percentile."""

    requests: int
    events: int
    seconds: float
    first_byte_ms: float = 0.0

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds

    @property
    def events_per_s(self) -> float:
        return self.events / self.seconds


class _Client(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it was answered, until `until` (monotonic)."""

    def __init__(self, request: bytes, *, streaming: bool, until: float) -> None:
        self._request = request
        self._streaming = streaming
        self._until = until
        self._received = bytearray()
        self._need = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.requests = 0
        self.events = 0
        self._asked_at = 0.0
        self.first_bytes_s: list[float] = []

    def _ask(self) -> None:
        self._asked_at = time.perf_counter()
        self._transport.write(self._request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        received = self._received
        if not received:
            self.first_bytes_s.append(time.perf_counter() - self._asked_at)
        received += data
        if not self._complete():
            return
        if not received.startswith(b"HTTP/1.1 200"):
            self._fail(bytes(received[:500]).decode("utf-8", "replace"))
            return
        self.requests += 1
        if self._streaming:
            events = received.count(b"data: ")
            if events != EVENTS:
                self._fail(f"{events} events instead of {EVENTS}")
                return
            self.events += events
        received.clear()
        self._need = 0
        if time.monotonic() < self._until:
            self._ask()
        else:
            self._transport.close()

    def _complete(self) -> bool:
        received = self._received
        if self._need:
            return len(received) >= self._need
        if self._streaming and received.startswith(b"HTTP/1.1 200"):
            return received.endswith(_END)
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(received[:end]).lower()
        at = head.find(b"content-length:")
        if at < 0:  # a proxy that streams
            return received.endswith(_END)
        self._need = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
        return len(received) >= self._need

    def _fail(self, what: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(f"the answer was not the expected one: {what}"))
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done.done():
            return
        if self._received or exc is not None:
            self.done.set_exception(exc or RuntimeError("the connection was closed in an answer"))
        else:
            self.done.set_result(None)


def request_of(port: int, key: str, path: str) -> bytes:
    """A whole request, ready to be written."""
    body = WRAPPED if path == TRANSLATED_PATH else BODY
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nx-goog-api-key: {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def load(port: int, key: str, *, mode: str, connections: int, seconds: float) -> Load:
    """Keep `connections` busy for `seconds`. `mode`: a name of PATHS."""
    request = request_of(port, key, PATHS[mode])
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    streaming, until = mode != "plain", began + seconds
    clients = [_Client(request, streaming=streaming, until=until) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
    await asyncio.gather(*(client.done for client in clients))
    took_s = time.monotonic() - began
    waits = sorted(wait for client in clients for wait in client.first_bytes_s)
    p99_ms = waits[int(len(waits) * 0.99)] * 1e3
    return Load(sum(c.requests for c in clients), sum(c.events for c in clients), took_s, p99_ms)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Upstream, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """`upstream` serves and prints its port; `load PORT KEY MODE CONNECTIONS SECONDS` prints requests, events, seconds and the first byte's p99."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("upstream", "load"))
    parser.add_argument("rest", nargs="*")
    asked = parser.parse_args()
    if asked.role == "upstream":
        asyncio.run(_serve())
        return
    port, key, mode, connections, seconds = asked.rest
    result = asyncio.run(
        load(int(port), key, mode=mode, connections=int(connections), seconds=float(seconds))
    )
    print(json.dumps([result.requests, result.events, result.seconds, result.first_byte_ms]))


if __name__ == "__main__":
    main()
