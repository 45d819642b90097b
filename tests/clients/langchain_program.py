"""A program built on LangChain's Google model, configured by its environment alone; the outcome as JSON."""

import json
import sys

from langchain_google_genai import ChatGoogleGenerativeAI

scenario, model = sys.argv[1:]
chat = ChatGoogleGenerativeAI(model=model, max_retries=1)
if scenario == "plain":
    outcome = {"text": chat.invoke("hello").text}
elif scenario == "stream":
    outcome = {"chunks": 0, "text": "", "error": ""}
    try:
        for chunk in chat.stream("hello"):
            outcome["chunks"] += 1
            outcome["text"] += chunk.text
    except Exception as error:
        outcome["error"] = str(error)
else:

    def weather() -> str:
        """The weather."""
        return "sunny"

    call = chat.bind_tools([weather]).invoke("[[call=weather]] hello").tool_calls[0]
    outcome = {"call": call["name"]}
print(json.dumps(outcome))
