"""What Google's JSON reader refuses: unknown fields, at any depth of a generate request, in either spelling.

A schema is a dictionary of camelCase names; a value says what lies below: another schema, a list of one schema, or
None for "anything". Only what wire-compatible clients rely on is listed; the wide open parts are left open.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from .envelope import Json, Refused
from .refusals import invalid_argument, unknown_field

Schema: TypeAlias = "Mapping[str, Schema | list[Schema] | None]"


def _open(names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split())


PART: Schema = {
    **_open(
        "text thought thoughtSignature videoMetadata mediaResolution partMetadata executableCode codeExecutionResult"
    ),
    **_open("toolCall toolResponse"),
    "inlineData": _open("mimeType data displayName"),
    "fileData": _open("mimeType fileUri displayName"),
    "functionCall": _open("id name args partialArgs willContinue"),
    "functionResponse": _open("id name response parts willContinue scheduling"),
}
CONTENT: Schema = {"role": None, "parts": [PART]}
FUNCTION: Schema = _open(
    "name description parameters parametersJsonSchema response responseJsonSchema behavior"
)
TOOL: Schema = {
    "functionDeclarations": [FUNCTION],
    **_open(
        "googleSearch googleSearchRetrieval codeExecution urlContext googleMaps computerUse fileSearch mcpServers"
    ),
    **_open("retrieval enterpriseWebSearch parallelAiSearch"),
}
GENERATION_CONFIG: Schema = {
    **_open("temperature topP topK candidateCount maxOutputTokens stopSequences responseLogprobs logprobs"),
    **_open("presencePenalty frequencyPenalty seed responseMimeType responseSchema responseJsonSchema"),
    **_open(
        "routingConfig modelSelectionConfig responseModalities mediaResolution speechConfig audioTimestamp"
    ),
    **_open(
        "enableAffectiveDialog enableEnhancedCivicAnswers imageConfig responseFormat _responseJsonSchema"
    ),
    "thinkingConfig": _open("includeThoughts thinkingBudget thinkingLevel"),
}
GENERATE: Schema = {
    "contents": [CONTENT],
    "systemInstruction": CONTENT,
    "tools": [TOOL],
    "toolConfig": _open("functionCallingConfig retrievalConfig includeServerSideToolInvocations"),
    "safetySettings": [_open("category threshold method")],
    "generationConfig": GENERATION_CONFIG,
    **_open("cachedContent labels model serviceTier store modelArmorConfig"),
}
CODE_ASSIST_INNER: Schema = {**GENERATE, **_open("sessionId")}
CODE_ASSIST: Schema = _open(
    "model project userPromptId request enabledCreditTypes requestId requestType userAgent"
)
VERTEX_COUNT: Schema = {**GENERATE, **_open("instances")}
GL_COUNT: Schema = {"contents": [CONTENT], "generateContentRequest": GENERATE, **_open("model")}
EMBED: Schema = {
    "content": CONTENT,
    **_open("model taskType title outputDimensionality embedContentConfig autoTruncate"),
}


def check(body: Any, schema: Schema, where: str = "") -> None:
    """Refused with Google's 400 when `body` has a field that `schema` lacks."""
    if not isinstance(body, dict):
        raise Refused(invalid_argument(f"Invalid value at '{where}'."))
    for name, value in body.items():
        key = name if name in schema else camel(name)
        if key not in schema:
            raise Refused(unknown_field(name, where))
        below = schema[key]
        if below is None or value is None:
            continue
        path = f"{where}.{_snake(key)}" if where else _snake(key)
        if isinstance(below, list):
            if not isinstance(value, list):  # proto JSON takes a lone message for a repeated one
                body[name] = [value]
            for index, entry in enumerate(body[name]):
                check(entry, below[0], f"{path}[{index}]")
        else:
            check(value, below, path)


def get(body: Json, name: str, default: Any = None) -> Any:
    """`body[name]` in either spelling."""
    value = body.get(name)
    return body.get(_snake(name), default) if value is None else value


def number(value: Any, default: int) -> int:
    """A whole number as query parameters and proto JSON write it; missing means `default`."""
    try:
        return int(value or default)
    except (TypeError, ValueError) as bad:
        raise Refused(invalid_argument(f"Invalid value {value!r}, a whole number is expected.")) from bad


def roles(contents: Any, *, required: bool) -> None:
    """Vertex wants a role on every content; the others only refuse wrong ones."""
    if not contents or not isinstance(contents, list):
        raise Refused(
            invalid_argument(
                "* GenerateContentRequest.contents: contents is not specified\n", field="contents"
            )
        )
    for content in contents:
        role = content.get("role", "")
        if role not in {"user", "model", "function"} and (role or required):
            raise Refused(invalid_argument("Please use a valid role: user, model."))
        if not content.get("parts"):
            raise Refused(
                invalid_argument(
                    "* GenerateContentRequest.contents[0].parts: contents.parts must not be empty.\n"
                )
            )


@lru_cache(maxsize=512)
def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


@lru_cache(maxsize=512)
def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
