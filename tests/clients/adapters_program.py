"""A program with the adapter for LiteLLM or for LangChain: `adapters_program.py LIBRARY SCENARIO MODEL`; prints JSON.

`all`: a whole answer, a stream, both with asyncio, and a tool's call. `stream`: that alone, with its error.
"""

import asyncio
import json
import sys

library, scenario, model = sys.argv[1:]
outcome = {"chunks": 0, "text": "", "error": ""}


def weather() -> str:
    """The weather."""
    return "sunny"


if library == "litellm":
    import litellm

    from gemini_pool.adapters.litellm import async_pooled, pooled

    TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
    ask = {"model": f"gemini/{model}", "messages": [{"role": "user", "content": "hello"}], "num_retries": 0}
    way = pooled()

    def stream():
        for chunk in litellm.completion(**ask, stream=True, **way):
            yield chunk.choices[0].delta.content or ""

    def whole():
        return litellm.completion(**ask, **way).choices[0].message.content

    def call():
        asked = {**ask, "messages": [{"role": "user", "content": "[[call=weather]] hello"}]}
        tools = [{"type": "function", "function": TOOL}]
        return litellm.completion(**asked, tools=tools, **way).choices[0].message.tool_calls[0].function.name

    async def awaited():
        way = async_pooled()
        chunks = await litellm.acompletion(**ask, stream=True, **way)
        return [
            (await litellm.acompletion(**ask, **way)).choices[0].message.content,
            "".join([chunk.choices[0].delta.content or "" async for chunk in chunks]),
        ]

else:
    from gemini_pool.adapters.langchain import pooled_chat

    chat = pooled_chat(model)

    def stream():
        for chunk in chat.stream("hello"):
            yield chunk.text

    def whole():
        return chat.invoke("hello").text

    def call():
        return chat.bind_tools([weather]).invoke("[[call=weather]] hello").tool_calls[0]["name"]

    async def awaited():
        return [
            (await chat.ainvoke("hello")).text,
            "".join([chunk.text async for chunk in chat.astream("hello")]),
        ]


try:
    for text in stream():
        outcome["chunks"] += 1
        outcome["text"] += text
except Exception as error:
    outcome["error"] = f"{type(error).__name__}: {error}"
if scenario == "all":
    outcome |= {"whole": whole(), "call": call(), "awaited": asyncio.run(awaited())}
print(json.dumps(outcome))
