"""The calls of the conformance table: one line a call. What comes of each on each backend is found out by
`test_conformance.py`, which also writes the page.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.fakes.site import Got

HELLO = [{"role": "user", "parts": [{"text": "hello"}]}]
CHAT = [{"role": "user", "content": "hello"}]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
WEATHER = {
    "name": "weather",
    "description": "d",
    "parameters": {"type": "object", "properties": {"in": {"type": "string"}}},
}
CALLING = [
    *HELLO,
    {
        "role": "model",
        "parts": [
            {"functionCall": {"name": "weather", "args": {}}, "thoughtSignature": "bWFkZS1lbHNld2hlcmU="}
        ],
    },
    {
        "role": "user",
        "parts": [{"functionResponse": {"name": "weather", "response": {"sky": "blue"}}}, {"text": "hello"}],
    },
]

Check = Callable[[Got], bool]


@dataclass(frozen=True)
class Called:
    """One line of the table. `path` may name {model}; `body` is a value, or bytes. `right`: whether an answer of 2xx
    is what the client hoped for."""

    surface: str
    name: str
    path: str
    body: Any
    right: Check
    verb: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()


def said(got: Got) -> bool:
    """Whole, with the answer's text somewhere in it."""
    return b"you said: " in got.body and b"hello" in got.body


def finished(got: Got) -> bool:
    """Events (or an array) whose texts are the answer, and a finish marker."""
    pieces = got.events if got.body.startswith(b"data: ") else got.json
    pieces = [piece.get("response", piece) for piece in pieces]
    text = "".join(p.get("text", "") for e in pieces for p in e["candidates"][0]["content"]["parts"])
    return "you said: " in text and "finishReason" in pieces[-1]["candidates"][0]


def counted(got: Got) -> bool:
    return bool(got.json["totalTokens"] > 0)


def has(*words: str) -> Check:
    return lambda got: all(word.encode() in got.body for word in words)


def chatted(got: Got) -> bool:
    return (
        "you said: " in got.json["choices"][0]["message"]["content"]
        and got.json["choices"][0]["finish_reason"] == "stop"
    )


def chat_streamed(got: Got) -> bool:
    pieces = [event for event in got.events if event.get("choices")]
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in pieces)
    return "you said: " in text and got.body.rstrip().endswith(b"data: [DONE]")


def _gemini(
    name: str, method: str, right: Check, *, query: str = "", contents: Any = HELLO, **more: Any
) -> Called:
    return Called(
        "Gemini API", name, f"/v1beta/models/{{model}}:{method}{query}", {"contents": contents, **more}, right
    )


def _vertex(name: str, method: str, right: Check, *, query: str = "", **more: Any) -> Called:
    path = f"/v1/projects/p/locations/l/publishers/google/models/{{model}}:{method}{query}"
    return Called("Vertex", name, path, {"contents": HELLO, **more}, right)


def _assist(
    name: str, method: str, right: Check, *, query: str = "", body: Any = None, verb: str = "POST"
) -> Called:
    asked = {
        "model": "{model}",
        "project": "p",
        "user_prompt_id": "u",
        "request": {"contents": HELLO, "session_id": "s"},
    }
    return Called(
        "Code Assist", name, f"/v1internal{method}{query}", asked if body is None else body, right, verb
    )


def _openai(name: str, path: str, right: Check, body: Any, verb: str = "POST") -> Called:
    return Called(
        "OpenAI", name, path, body, right, verb, (("x-goog-api-key", ""), ("Authorization", "Bearer {key}"))
    )


def _chat(name: str, right: Check, **more: Any) -> Called:
    return _openai(name, "/v1/chat/completions", right, {"model": "{model}", "messages": CHAT, **more})


SSE = "?alt=sse"
_FILE = {
    "role": "user",
    "parts": [
        {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}},
        {"text": "hello"},
    ],
}
CALLS = [
    _gemini("generateContent", "generateContent", said),
    _gemini("streamGenerateContent, SSE", "streamGenerateContent", finished, query=SSE),
    _gemini("streamGenerateContent, JSON array", "streamGenerateContent", finished),
    _gemini("countTokens", "countTokens", counted),
    Called("Gemini API", "countTokens of a whole request", "/v1beta/models/{model}:countTokens",
           {"generateContentRequest": {"model": "models/{model}", "contents": HELLO, "systemInstruction": {"parts": [{"text": "be brief"}]}}}, counted),
    Called("Gemini API", "embedContent", "/v1beta/models/gemini-embedding-001:embedContent", {"content": HELLO[0]}, has('"values"')),
    Called("Gemini API", "batchEmbedContents", "/v1beta/models/gemini-embedding-001:batchEmbedContents",
           {"requests": [{"model": "models/gemini-embedding-001", "content": HELLO[0]}] * 2}, has('"embeddings"')),
    _gemini("a system instruction", "generateContent", said, systemInstruction={"parts": [{"text": "be brief"}]}),
    _gemini("contents without a role", "generateContent", said, contents=[{"parts": [{"text": "hello"}]}]),
    _gemini("tools", "generateContent", has('"functionCall"', '"weather"'), tools=[{"functionDeclarations": [WEATHER]}],
            contents=[{"role": "user", "parts": [{"text": "[[call=weather]] hello"}]}]),
    _gemini("a call, its signature of elsewhere, its result", "generateContent", said, contents=CALLING, tools=[{"functionDeclarations": [WEATHER]}]),
    _gemini("JSON mode", "generateContent", said, generationConfig={"responseMimeType": "application/json", "responseSchema": {"type": "OBJECT"}}),
    _gemini("thinkingConfig", "generateContent", said, generationConfig={"thinkingConfig": {"thinkingBudget": 128, "includeThoughts": True}}),
    _gemini("an inline image", "generateContent", said, contents=[{"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": PIXEL}}, {"text": "hello"}]}]),
    _gemini("safetySettings", "generateContent", said, safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]),
    _gemini("Google Search", "generateContent", said, tools=[{"googleSearch": {}}]),
    _gemini("a file of somewhere else", "generateContent", said, contents=[_FILE]),
    _gemini("a cache of somewhere else", "generateContent", said, cachedContent="cachedContents/abc"),
    Called("Gemini API", "models", "/v1beta/models", None, has('"models"'), "GET"),
    Called("Gemini API", "models/{model}", "/v1beta/models/gemini-2.5-flash", None, has("gemini-2.5-flash"), "GET"),
    Called("Gemini API", "files", "/v1beta/files", None, lambda got: "error" not in got.json, "GET"),
    Called("Gemini API", "upload of a file", "/upload/v1beta/files?uploadType=media", b"hello", has('"file"'), headers=(("Content-Type", "text/plain"), ("X-Goog-Upload-Protocol", "raw"))),
    Called("Gemini API", "cachedContents", "/v1beta/cachedContents", {"model": "models/{model}", "contents": HELLO, "ttl": "60s"}, has('"name"')),
    Called("Gemini API", "interactions", "/v1beta/interactions", {"model": "{model}", "input": "hello"}, has('"id"')),
    _gemini("batchGenerateContent", "batchGenerateContent", has('"name"')),
    _gemini("predict", "predict", has('"predictions"')),
    _assist("generateContent", ":generateContent", said),
    _assist("streamGenerateContent, SSE", ":streamGenerateContent", finished, query=SSE),
    _assist("streamGenerateContent, JSON array", ":streamGenerateContent", finished),
    _assist("countTokens", ":countTokens", counted, body={"request": {"model": "models/{model}", "contents": HELLO}}),
    _assist("loadCodeAssist", ":loadCodeAssist", has("currentTier", "cloudaicompanionProject"), body={}),
    _assist("onboardUser", ":onboardUser", has('"done":true'), body={"tierId": "standard-tier"}),
    _assist("retrieveUserQuota", ":retrieveUserQuota", has("buckets"), body={}),
    _assist("listExperiments", ":listExperiments", has("flags"), body={}),
    _assist("fetchAdminControls", ":fetchAdminControls", has("adminControls"), body={}),
    _assist("recordCodeAssistMetrics", ":recordCodeAssistMetrics", lambda got: got.json == {}, body={}),
    _vertex("generateContent", "generateContent", said),
    _vertex("streamGenerateContent, SSE", "streamGenerateContent", finished, query=SSE),
    _vertex("streamGenerateContent, JSON array", "streamGenerateContent", finished),
    _vertex("countTokens", "countTokens", counted),
    Called("Vertex", "embedContent", "/v1/projects/p/locations/l/publishers/google/models/gemini-embedding-001:embedContent", {"content": HELLO[0]}, has('"values"')),
    _vertex("labels", "generateContent", said, labels={"team": "blue"}),
    Called("Vertex", "predict", "/v1/projects/p/locations/l/publishers/google/models/gemini-embedding-001:predict", {"instances": [{"content": "hello"}]}, has('"predictions"')),
    _vertex("predictLongRunning", "predictLongRunning", has('"name":"projects/')),
    Called("Vertex", "cachedContents", "/v1/projects/p/locations/l/cachedContents", {"model": "projects/p/locations/l/publishers/google/models/{model}", "contents": HELLO, "ttl": "60s"}, has('"name":"projects/')),
    _vertex("a cache of somewhere else", "generateContent", said, cachedContent="projects/p/locations/l/cachedContents/1"),
    Called("Vertex", "batchPredictionJobs", "/v1/projects/p/locations/l/batchPredictionJobs", {"model": "projects/p/locations/l/publishers/google/models/{model}"}, has('"name":"projects/')),
    Called("Vertex", "endpoints", "/v1/projects/p/locations/l/endpoints", None, has("endpoints"), "GET"),
    Called("Vertex", "models", "/v1beta1/publishers/google/models", None, has("publisherModels"), "GET"),
    _chat("chat/completions", chatted),
    _chat("chat/completions, stream", chat_streamed, stream=True),
    _openai("tools", "/v1/chat/completions", has('"tool_calls"', '"weather"'), {"model": "{model}", "messages": [{"role": "user", "content": "[[call=weather]] hello"}], "tools": [{"type": "function", "function": WEATHER}]}),
    _chat("JSON mode", chatted, response_format={"type": "json_object"}),
    _chat("reasoning_effort", chatted, reasoning_effort="low"),
    _openai("an image", "/v1/chat/completions", chatted, {"model": "{model}", "messages": [{"role": "user", "content": [
        {"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]}]}),
    _openai("an image on the web", "/v1/chat/completions", chatted, {"model": "{model}", "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}]}]}),
    _openai("a call and its result", "/v1/chat/completions", chatted, {"model": "{model}", "tools": [{"type": "function", "function": WEATHER}], "messages": [
        *CHAT, {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "blue"}, *CHAT]}),
    _chat("logit_bias", chatted, logit_bias={"50256": -100}),
    _openai("responses", "/v1/responses", said, {"model": "{model}", "input": "hello"}),
    _openai("responses, stream", "/v1/responses", has("response.completed", "you said: "), {"model": "{model}", "input": "hello", "stream": True}),
    _openai("responses, previous_response_id", "/v1/responses", said, {"model": "{model}", "input": "hello", "previous_response_id": "resp_1"}),
    _openai("embeddings", "/v1/embeddings", has('"embedding"'), {"model": "gemini-embedding-001", "input": "hello"}),
    _openai("embeddings of several", "/v1/embeddings", has('"index":1'), {"model": "gemini-embedding-001", "input": ["hello", "you"]}),
    _openai("models", "/v1/models", has('"object":"list"'), None, "GET"),
]  # fmt: skip


def filled(value: Any, **names: str) -> Any:
    """`value` with {model} and {key} put in, however deep."""
    if value is None or isinstance(value, bytes):
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    for name, said_ in names.items():
        text = text.replace("{" + name + "}", said_)
    return text if isinstance(value, str) else json.loads(text)
