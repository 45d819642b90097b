"""OpenAI's chat completion request -> the Gemini API's generateContent.

What Gemini has no place for is refused; `IGNORED` lists what is knowingly left out because it says nothing about the
answer. System messages, wherever they stand, become the system instruction; thoughts in the history go, as Google
wants it; the signatures of calls stay with them (`extra_content.google.thought_signature`, else what `remembered`
knows for the call's id, else Google's own word for "none").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from ..backends.translate import SENTINEL
from ..errors import UNREADABLE
from . import openai_parts, openai_tools, thinking
from .reading import Json, Reader, refused

# Bookkeeping of OpenAI's side, hints on price and caching, and choices that Gemini makes on its own.
IGNORED = (
    "store", "metadata", "safety_identifier", "prompt_cache_retention", "prompt_cache_options", "include_reasoning",
)  # fmt: skip
CANNOT = {
    "logit_bias": "Gemini does not weigh single tokens",
    "audio": "answers are text",
    "prediction": "Gemini takes no predicted output",
    "web_search_options": "OpenAI's search is not Google's",
    "functions": "it is the old form: use `tools`",
    "function_call": "it is the old form: use `tool_choice`",
    "moderation": "Gemini's own safety settings apply: `extra_body.google.safety_settings`",
}
_SAME = {
    "temperature": "temperature",
    "top_p": "topP",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_WHOLE = {"n": "candidateCount", "seed": "seed", "top_k": "topK"}
_GOOGLE = {
    "cached_content": "cachedContent",
    "safety_settings": "safetySettings",
    "labels": "labels",
}
HISTORY = ("reasoning_content", "reasoning", "reasoning_details", "annotations", "images", "name")

Remembered = Callable[[str], str]


@dataclass(slots=True)
class Asked:
    """What a request wants besides the generation itself. `session`: what the client calls the conversation."""

    model: str
    body: Json
    stream: bool = False
    usage: bool = False  # in a chunk of its own at the end of a stream
    session: str = ""
    user: str = ""
    one_call: bool = False  # at most one tool call an answer
    logprobs: bool = False


def translate(body: Json, remembered: Remembered = lambda _: "") -> Asked:
    """Raises PoolError `bad_request`. `remembered(call_id)` is the signature that came with a call, or ""."""
    reader = Reader(body)
    asked = Asked(
        reader.text("model"), {}, session=_name(reader, "prompt_cache_key"), user=_name(reader, "user")
    )
    reader.ignore(IGNORED)
    reader.refuse(CANNOT)
    _stream(reader, asked)
    config: Json = {}
    _sampling(reader, config, asked)
    _google(reader, config, asked)
    openai_tools.answer_form(reader.inner("response_format"), config)
    asked.body.update(_conversation(reader.items("messages"), remembered))
    _tools(reader, asked)
    _indifferent(reader)
    reader.done()
    if config:
        asked.body["generationConfig"] = config
    return asked


def _name(reader: Reader, field: str) -> str:
    return reader.text(field, "")


def _stream(reader: Reader, asked: Asked) -> None:
    asked.stream = reader.flag("stream")
    options = reader.inner("stream_options")
    if options is not None:
        asked.usage = options.flag("include_usage")
        options.ignore(("include_obfuscation",))
        options.done()


def _sampling(reader: Reader, config: Json, asked: Asked) -> None:
    for theirs, ours in _SAME.items():
        if (number := reader.number(theirs)) is not None:
            config[ours] = number
    for theirs, ours in _WHOLE.items():
        if (whole := reader.whole(theirs)) is not None:
            config[ours] = whole
    longest = reader.whole("max_tokens")
    preferred = reader.whole("max_completion_tokens")
    if (limit := longest if preferred is None else preferred) is not None:
        config["maxOutputTokens"] = limit
    stop = reader.take("stop")
    if isinstance(stop, str):
        stop = [stop]
    if stop is not None:
        if not isinstance(stop, list) or not all(isinstance(item, str) for item in stop):
            raise refused("`stop` must be a string or an array of strings")
        if stop:
            config["stopSequences"] = stop
    asked.logprobs = reader.flag("logprobs")
    top = reader.whole("top_logprobs")
    if asked.logprobs:
        config["responseLogprobs"] = True
        if top:
            config["logprobs"] = top
    effort = reader.take("reasoning_effort")
    if effort is not None:
        config["thinkingConfig"] = thinking.of_effort(str(effort), asked.model, "reasoning_effort")
        if effort != "none":
            config["thinkingConfig"]["includeThoughts"] = True


def _google(reader: Reader, config: Json, asked: Asked) -> None:
    """`extra_body.google`, as Google's own OpenAI endpoint takes it; `google` alone is what SDKs make of it at times."""
    extra = reader.inner("extra_body")
    google = extra.inner("google") if extra is not None else None
    if extra is not None:
        extra.done()
    for found in (google, reader.inner("google")):
        if found is None:
            continue
        thought = found.inner("thinking_config") or found.inner("thinkingConfig")
        if thought is not None:
            if "thinkingConfig" in config:
                raise refused("`reasoning_effort` and `thinking_config` cannot be used together")
            config["thinkingConfig"] = thinking.of_config(thought)
        for theirs, ours in _GOOGLE.items():
            value = found.take(theirs)
            value = found.take(ours) if value is None else value
            if value is not None:
                asked.body[ours] = value
        found.refuse({"thought_tag_marker": "thoughts are told in `reasoning_content`"})
        found.done()


def _tools(reader: Reader, asked: Asked) -> None:
    declared = openai_tools.declarations(reader.items("tools"))
    declared, config = openai_tools.choice(reader.take("tool_choice"), declared)
    asked.one_call = not reader.flag("parallel_tool_calls", True)
    if declared:
        asked.body["tools"] = [{"functionDeclarations": declared}]
    if config is not None:
        asked.body["toolConfig"] = config


def _indifferent(reader: Reader) -> None:
    """Fields that may be there as long as they ask for what happens anyway."""
    for name, usual in (("service_tier", ("auto", "default")), ("verbosity", ("medium",))):
        value = reader.take(name)
        if value is not None and value not in usual:
            raise refused(f"`{name}` {str(value)[:40]!r} cannot be carried over to Gemini")
    for kind in reader.items("modalities"):
        if kind != "text":
            raise refused(
                f"`modalities` {str(kind)[:40]!r} cannot be carried over to Gemini", "answers are text"
            )


# ---- messages -------------------------------------------------------------------------------------------------------


def _conversation(messages: list[Any], remembered: Remembered) -> Json:
    """contents and systemInstruction."""
    system: list[Json] = []
    contents: list[Json] = []
    calls: list[tuple[str, str]] = []  # id and name of the calls whose results are due, in order
    names: dict[str, str] = {}  # of every call so far
    results: dict[str, Json] = {}

    def flush() -> None:
        """The results of parallel calls stand in one content, in the order of the calls."""
        if results:
            order = {call: place for place, (call, _) in enumerate(calls)}
            found = sorted(results.items(), key=lambda item: order.get(item[0], len(order)))
            contents.append({"role": "user", "parts": [part for _, part in found]})
            results.clear()

    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        reader = Reader(message, where)
        role = reader.text("role")
        reader.ignore(("cache_control",))
        if role == "tool":
            call = reader.text("tool_call_id")
            if call in results:
                raise refused(f"`{where}.tool_call_id` answers a call that was answered before")
            results[call] = _result(reader, call, names)
            continue
        flush()
        if role in ("system", "developer"):
            system += openai_parts.texts(reader.take("content"), f"{where}.content")
            reader.ignore(("name",))
        elif role == "user":
            contents.append(
                {
                    "role": "user",
                    "parts": _said(openai_parts.parts(reader.take("content"), f"{where}.content")),
                }
            )
            reader.ignore(("name",))
        elif role == "assistant":
            # Two in a row are one turn of the model's: results must follow on all of its calls.
            again = bool(contents) and contents[-1]["role"] == "model"
            parts, more = _assistant(reader, where, remembered, first=not (again and calls))
            calls = [*calls, *more] if again else more
            names |= dict(more)
            if again:
                contents[-1]["parts"] += parts
            elif parts:
                contents.append({"role": "model", "parts": parts})
        else:
            raise refused(f"`{where}.role` {role[:40]!r} is none of system, developer, user, assistant, tool")
        reader.done()
    flush()
    if not contents:
        raise refused("`messages` must have at least one that is not a system message")
    made: Json = {"contents": contents}
    if system := [part for part in system if part["text"]]:
        made["systemInstruction"] = {"parts": system}
    return made


def _said(parts: list[Json]) -> list[Json]:
    """`parts` without empty texts, which Google refuses beside others."""
    return [part for part in parts if part.get("text") != ""] or [{"text": ""}]


def _assistant(
    reader: Reader, where: str, remembered: Remembered, *, first: bool
) -> tuple[list[Json], list[tuple[str, str]]]:
    content, refusal = reader.take("content"), reader.take("refusal")
    parts = [] if content is None else openai_parts.texts(content, f"{where}.content")
    if isinstance(refusal, str):
        parts.append({"text": refusal})
    parts = [part for part in parts if part["text"]]
    reader.ignore(HISTORY)
    reader.refuse(
        {"audio": "Gemini has no place for it", "function_call": "it is the old form: use `tool_calls`"}
    )
    if signature := _signature(reader):
        if parts:
            parts[-1]["thoughtSignature"] = signature
        else:
            parts.append({"text": "", "thoughtSignature": signature})
    calls: list[tuple[str, str]] = []
    for index, item in enumerate(reader.items("tool_calls")):
        call = Reader(item, f"{where}.tool_calls[{index}]")
        identity = call.text("id", "")
        call.ignore(("index",))
        if (kind := call.text("type", "function")) != "function":
            raise refused(f"a call of a {kind[:40]!r} tool cannot be carried over to Gemini")
        function = call.inner("function")
        if function is None:
            raise call.wrong("function", "must be an object")
        name = function.text("name")
        made: Json = {
            "functionCall": {"name": name, "args": _object(function.text("arguments", ""), "arguments")}
        }
        function.done()
        signature = _signature(call) or remembered(identity)
        call.done()
        # Google wants one on the first call of a step; its parallel calls go without.
        if signature or (first and not calls):
            made["thoughtSignature"] = signature or SENTINEL
        calls.append((identity, name))
        parts.append(made)
    return parts, calls


def _signature(reader: Reader) -> str:
    extra = reader.inner("extra_content")
    google = extra.inner("google") if extra is not None else None
    if google is None:
        return ""
    return google.text("thought_signature", "")


def _result(reader: Reader, call: str, names: dict[str, str]) -> Json:
    named = reader.text("name", "")
    name = names.get(call) or named
    if not name:
        raise refused(f"`{reader.path('tool_call_id')}` {call[:60]!r} answers no call of the messages before")
    found = openai_parts.parts(reader.take("content", ""), reader.path("content"))
    reader.ignore(("is_error", "status"))
    reader.done()
    said = "".join(part["text"] for part in found if "text" in part)
    response: Json = {"name": name, "response": _object(said, "output")}
    if more := [part for part in found if "text" not in part]:
        response["parts"] = more
    return {"functionResponse": response}


def _object(said: str, name: str) -> Any:
    """A JSON object as it was written; anything else under `name`, for Google wants an object."""
    if not said.strip():
        return {} if name == "arguments" else {name: said}
    try:
        msgspec.json.decode(said, type=dict[str, msgspec.Raw])
    except UNREADABLE:
        return {name: said}
    return msgspec.Raw(said.encode())
