"""OpenAI's Responses request -> its chat completion request, which is then translated like any other.

The pool keeps no conversation: whatever refers to one that OpenAI would have kept is refused. The history comes in
`input`, as everybody does who sets `store: false`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import openai_chat_request as chat
from . import openai_tools
from .reading import Json, Reader, refused

# Bookkeeping of OpenAI's side, hints on price and caching, limits on tools that are not served, and `truncation`:
# nothing is ever cut from the input here.
IGNORED = (
    "store", "safety_identifier", "prompt_cache_retention", "prompt_cache_options", "truncation", "max_tool_calls",
    "stream_options", "client_metadata",
)  # fmt: skip
CANNOT = {
    "previous_response_id": "responses are not kept: send the conversation in `input`",
    "conversation": "conversations are not kept: send the conversation in `input`",
    "background": "responses are not kept: ask without it",
    "prompt": "prompts are not kept: send the text in `instructions`",
    "context_management": "nothing is compacted here",
    "moderation": "Gemini's own safety settings apply",
}
_PASSED = (
    "model", "stream", "temperature", "top_p", "parallel_tool_calls", "prompt_cache_key", "user", "service_tier",
    "extra_body", "google", "top_k", "seed",
)  # fmt: skip
_HARMLESS_INCLUDE = frozenset(
    {"reasoning.encrypted_content"}
)  # none is made, none is needed: signatures travel in calls


@dataclass(slots=True)
class Asked:
    """`chat`: the generation. `echo`: what the Response object repeats of the request."""

    chat: chat.Asked
    echo: Json


def translate(body: Json, remembered: chat.Remembered = lambda _: "") -> Asked:
    """Raises PoolError `bad_request`."""
    reader = Reader(body)
    echo = _echo(body)
    reader.ignore((*IGNORED, "metadata"))
    reader.refuse(CANNOT)
    asked: Json = {name: value for name in _PASSED if (value := reader.take(name)) is not None}
    for item in reader.items("include"):
        if not isinstance(item, str) or item not in _HARMLESS_INCLUDE:
            raise refused(f"`include` {str(item)[:60]!r} cannot be carried over to Gemini")
    if reader.whole("top_logprobs"):
        raise refused("`top_logprobs` cannot be carried over", "only chat completions tell them")
    asked["max_completion_tokens"] = reader.whole("max_output_tokens")
    asked["messages"] = _messages(reader)
    asked["tools"] = reader.items("tools")
    asked["tool_choice"] = reader.take("tool_choice")
    form = _text(reader, asked)
    summary = _reasoning(reader, asked)
    reader.done()
    found = chat.translate(asked, remembered)
    config = found.body.setdefault("generationConfig", {})
    openai_tools.answer_form(form, config)
    if "thinkingConfig" in config or summary:
        thinking = config.setdefault("thinkingConfig", {})
        if summary or asked.get("reasoning_effort"):
            thinking["includeThoughts"] = summary
    if not config:
        del found.body["generationConfig"]
    return Asked(found, echo)


def _echo(body: Json) -> Json:
    usual: Json = {
        "instructions": None, "max_output_tokens": None, "metadata": {}, "parallel_tool_calls": True, "reasoning": None,
        "temperature": None, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": None,
        "user": None,
    }  # fmt: skip
    given = {name: body[name] for name in usual if body.get(name) is not None}
    return {**usual, **given, "previous_response_id": None, "store": False, "truncation": "disabled"}


def _text(reader: Reader, asked: Json) -> Reader | None:
    inner = reader.inner("text")
    if inner is None:
        return None
    asked["verbosity"] = inner.take("verbosity")
    form = inner.inner("format")
    inner.done()
    return form


def _reasoning(reader: Reader, asked: Json) -> bool:
    """The effort goes to the chat form; whether a summary, that is Google's thoughts, is wanted comes back."""
    inner = reader.inner("reasoning")
    if inner is None:
        return False
    asked["reasoning_effort"] = inner.take("effort")
    summary = inner.take("summary") or inner.take("generate_summary")
    inner.ignore(("generate_summary", "context", "encrypted_content"))
    inner.done()
    return bool(summary) and summary != "none"


# ---- input ----------------------------------------------------------------------------------------------------------


def _messages(reader: Reader) -> list[Json]:
    messages: list[Json] = []
    instructions = reader.take("instructions")
    if instructions:
        if not isinstance(instructions, str):
            raise refused("`instructions` must be a string")
        messages.append({"role": "system", "content": instructions})
    given = reader.take("input")
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise refused("`input` must be a string or a non-empty array of items")
    for index, item in enumerate(given):
        _add(messages, Reader(item, f"input[{index}]"))
    return messages


def _add(messages: list[Json], item: Reader) -> None:
    kind = item.text("type", "message")
    if kind == "message":
        message: Json = {"role": item.text("role"), "content": item.take("content")}
        if (extra := item.take("extra_content")) is not None and message["role"] == "assistant":
            message["extra_content"] = extra
        item.ignore(("id", "status", "phase"))
        messages.append(message)
    elif kind == "function_call":
        call: Json = {
            "id": item.text("call_id"),
            "type": "function",
            "function": {"name": item.text("name"), "arguments": item.text("arguments", "")},
            "extra_content": item.take("extra_content"),
        }
        item.ignore(("id", "status"))
        _calling(messages).append(call)
    elif kind == "function_call_output":
        output = item.take("output", "")
        messages.append({"role": "tool", "tool_call_id": item.text("call_id"), "content": output})
        item.ignore(("id", "status"))
    elif kind == "reasoning":  # thoughts of earlier turns do not go back to Google
        return
    elif kind == "item_reference":
        raise refused(
            "an `item_reference` cannot be followed", "responses are not kept: send the item itself"
        )
    else:
        raise refused(f"an input item of type {kind[:40]!r} cannot be carried over to Gemini")
    item.done()


def _calling(messages: list[Json]) -> list[Any]:
    """The calls of the model's message under way: calls in a row are parallel, and stand in one message."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    calls: list[Any] = messages[-1].setdefault("tool_calls", [])
    return calls
