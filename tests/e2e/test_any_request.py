"""Requests put together by chance from parts that each mean something somewhere: whatever comes, the daemon has an answer,
nothing fails inside, and it serves on."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path

import pytest
from tests.fakes.site import ThreeBackends, three_backends

ROUNDS = 1500
NAMES = (
    "x-gemini-pool-account x-gemini-pool-session x-gemini-pool-wait-s X-Server-Timeout x-gemini-pool-priority "
    "x-gemini-pool-allow-paid x-gemini-pool-data x-session-id x-gemini-api-privileged-user-id Api-Revision Accept Range "
    "If-Match X-Goog-Upload-Command X-Goog-Upload-Protocol X-Goog-Upload-Offset Content-Range Origin Content-Type "
    "Content-Encoding Expect Connection Accept-Encoding Authorization Metadata-Flavor traceparent User-Agent Upgrade"
).split()
VALUES = [
    "", "a", "gl", "ca", "caf\xe9", "\xff\xfe", "0", "-1", "1e999", "nan", "true", "maybe", "batch", "no-training",
    "bytes=0-1", "start", "upload, finalize", "query", "raw", "resumable", "gzip", "br", "zstd", "identity",
    "100-continue", "close", "keep-alive, Api-Revision", "upgrade", "h2c", "a" * 5000, "{}", "x\ty", "*;q=0", '"q"',
]  # fmt: skip
MODELS = ["gemini-2.5-flash", "nope", "a%2fb", "%ff", "a%20b", "..", "m" * 200, "tunedModels/x", "a%3fb"]
PATHS = [
    "/", "/metrics", "/v1beta/models", "/v1/models", "/v1beta/models/{m}", "/v1beta/models/{m}:generateContent",
    "/v1beta/models/{m}:streamGenerateContent", "/v1beta/models/{m}:countTokens", "/v1beta/models/{m}:embedContent",
    "/v1beta/models/{m}:batchEmbedContents", "/v1beta/models/{m}:predict", "/v1beta/models/{m}/operations/x",
    "/v1beta/files", "/v1beta/files/x", "/v1beta/files/x:download", "/upload/v1beta/files",
    "/download/v1beta/files/x:download", "/v1beta/cachedContents/x", "/v1beta/interactions", "/v1beta/interactions/x",
    "/v1beta/batches", "/v1beta/fileSearchStores", "/v1internal:loadCodeAssist", "/v1internal:generateContent",
    "/v1internal:streamGenerateContent", "/v1internal:countTokens", "/v1internal/operations/x", "/v1internal:x",
    "/v1/projects/p/locations/l/publishers/google/models/{m}:generateContent", "/v1/projects/p/locations/l",
    "/v1beta1/publishers/google/models/{m}:streamGenerateContent", "/v1/projects/p/locations/l/cachedContents",
    "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1beta/openai/models", "/computeMetadata/v1/",
    "/ws/x", "/v1/", "/v1beta", "/upload/v1beta/", "/upload", "/v1beta/tunedModels/x:generateContent",
]  # fmt: skip
QUERIES = [
    "", "?alt=sse", "?key=", "?key=x", "?pageSize=-1", "?pageToken=%ff~%00", "?alt=media", "?uploadType=resumable",
    "?gemini_pool_upload=%ff", "?a=%zz", "?%ff=%fe", "?a&b&=c", "?$httpMethod=DELETE",
]  # fmt: skip
PROMPT = b'{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}'
BODIES = [
    b"", b"{}", b"[]", b"null", b"1", b'"x"', b"{", b"\xff", PROMPT, b'{"model":"gemini-2.5-flash","request":%s}' % PROMPT,
    b'{"model":"m","messages":[{"role":"user","content":"x"}]}', b'{"model":1}', b'{"model":null,"input":null}',
    b'{"contents":1}', b'{"contents":[1]}', b'{"contents":[{"parts":1}]}', b'{"generationConfig":1,"contents":[]}',
    b'{"generationConfig":{"candidateCount":"x"}}', b'{"requests":[1]}', b'{"content":1}', b'{"request":1,"model":"m"}',
    b'{"generateContentRequest":1}', b'{"cachedContent":1}', b'{"instances":[1]}', b"[" * 3000, b'{"a":' * 3000,
    b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}', b'{"contents":[{"parts":[{"text":"\\ud800"}]}]}',
    b'{"request":{"session_id":"\\ud800"},"model":"gemini-2.5-flash"}', b'{"model":"m","messages":[1],"tools":[1]}',
    b'{"model":"m","input":[1,null,{}]}', b"x" * 70_000,
]  # fmt: skip


def sent(rng: random.Random, site: ThreeBackends) -> bytes:
    path = rng.choice(PATHS).replace("{m}", rng.choice(MODELS)) + rng.choice(QUERIES)
    verb = rng.choice("GET POST POST POST PATCH DELETE HEAD OPTIONS PUT TRACE".split())
    body = rng.choice(BODIES)
    lines = [f"{verb} {path} HTTP/1.1", f"Host: 127.0.0.1:{site.port}", f"x-goog-api-key: {site.key}"]
    lines += ["Connection: close", "x-gemini-pool-wait-s: 0", f"Content-Length: {len(body)}"]
    lines += [f"{rng.choice(NAMES)}: {rng.choice(VALUES)}" for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def answer(port: int, data: bytes) -> bytes:
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
        try:
            link.sendall(data)
            while chunk := link.recv(65536):
                said += chunk
        except ConnectionError:  # refused before its body was read
            pass
    return said


@pytest.mark.parametrize("seed", [1, 2])
def test_there_is_always_an_answer(tmp_path: Path, seed: int) -> None:
    """A status that says whose fault it is, the form of an error where there is a body, and nobody else harmed."""
    rng = random.Random(seed)
    with three_backends(
        tmp_path, config="[models.thinking]\n'*-flash' = { thinkingLevel = 'LOW' }\n"
    ) as site:
        for _ in range(ROUNDS):
            data = sent(rng, site)
            said = answer(site.port, data)
            head, _, body = said.partition(b"\r\n\r\n")
            assert head[:9] in (b"HTTP/1.1 ", b"HTTP/1.0 "), data[:600]
            status = int(head[9:12])
            assert status != 500, (data[:600], said)
            if status >= 400 and body and b"application/json" in head:
                error = json.loads(body)
                assert "error" in (error[0] if isinstance(error, list) else error), (data[:600], said)
        assert "failed inside" not in site.daemon.log
        assert "Traceback" not in site.daemon.log
        site.fresh()
        assert site.ask("POST", site.path("gl", "generateContent"), PROMPT).status == 200
