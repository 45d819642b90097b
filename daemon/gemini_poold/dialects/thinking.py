"""OpenAI's reasoning effort -> Google's thinkingConfig, per family of models, as Google's own OpenAI endpoint maps it."""

from __future__ import annotations

import re

from .reading import Json, Reader, refused

_FAMILY = re.compile(r"gemini-(\d+)(?:\.\d+)?-?(pro)?")
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
EFFORTS = ("none", *_BUDGETS)


def of_effort(effort: str, model: str, where: str) -> Json:
    """`thinkingBudget` before Gemini 3, `thinkingLevel` since. Raises `bad_request` for what the model cannot do."""
    if effort not in EFFORTS:
        raise refused(
            f"`{where}` {effort[:40]!r} cannot be carried over", f"Gemini knows {', '.join(EFFORTS)}"
        )
    found = _FAMILY.match(model.removeprefix("models/"))
    generation, pro = (int(found[1]), bool(found[2])) if found else (3, False)
    if effort == "none":
        if generation >= 3 or pro:
            raise refused(
                f"`{where}` 'none' cannot be carried over", f"{model} never stops thinking: try 'low'"
            )
        return {"thinkingBudget": 0}
    if generation < 3:
        return {"thinkingBudget": _BUDGETS[effort]}
    if pro and effort == "minimal":
        effort = "low"
    elif effort == "medium" and model.startswith("gemini-3-pro"):  # knows low and high only
        effort = "high"
    return {"thinkingLevel": effort}


def of_config(reader: Reader) -> Json:
    """`extra_body.google.thinking_config`, in either spelling."""
    config: Json = {}
    for ours, theirs in (
        ("thinkingBudget", "thinking_budget"),
        ("thinkingLevel", "thinking_level"),
        ("includeThoughts", "include_thoughts"),
    ):
        value = reader.take(theirs)
        value = reader.take(ours) if value is None else value
        if value is not None:
            config[ours] = value.lower() if ours == "thinkingLevel" and isinstance(value, str) else value
    reader.done()
    return config
