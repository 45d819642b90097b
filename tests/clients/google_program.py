"""One scenario of a program that uses a library of Google's, with the credentials of the machine that it runs on; the
outcome as JSON. Run by test_google_auth.py in an environment of its own.

    python google_program.py SCENARIO GOOGLE_URL GATEWAY_URL MODEL
"""

from __future__ import annotations

import json
import sys
from typing import Any

scenario, google_url, gateway_url, model = sys.argv[1:]
BODY = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}


def text_of(answer: Any) -> str:
    return answer["candidates"][0]["content"]["parts"][0]["text"]


def session() -> Any:
    """google-auth alone: `default()` and its own HTTP session."""
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    credentials, project = google.auth.default()
    path = f"/v1/projects/{project}/locations/global/publishers/google/models/{model}:generateContent"
    with AuthorizedSession(credentials) as http:
        answers = [http.post(url + path, json=BODY) for url in (google_url, gateway_url, google_url)]
    return {
        "kind": type(credentials).__module__,
        "project": project,
        "texts": [text_of(answer.json()) for answer in answers],
    }


def discovery() -> Any:
    """google-api-python-client, which finds the credentials by itself."""
    import google.auth
    from googleapiclient.discovery import build

    project = google.auth.default()[1]
    with build("aiplatform", "v1", client_options={"api_endpoint": google_url}) as service:
        models = service.projects().locations().publishers().models()
        name = f"projects/{project}/locations/global/publishers/google/models/{model}"
        answer = models.generateContent(model=name, body=BODY).execute()
    return {"texts": [text_of(answer)]}


def storage() -> Any:
    """google-cloud-storage; `google_url` is a bucket's server here."""
    from google.cloud import storage as cloud

    client = cloud.Client(client_options={"api_endpoint": google_url})
    return {"project": client.project, "buckets": [bucket.name for bucket in client.list_buckets()]}


def genai() -> Any:
    """google-genai in its Vertex mode, at the gateway: the token that it was given is its key."""
    import google.auth
    from google import genai as sdk
    from google.genai import types

    options = types.HttpOptions(base_url=gateway_url)
    client = sdk.Client(
        vertexai=True, project=google.auth.default()[1], location="global", http_options=options
    )
    whole = client.models.generate_content(model=model, contents="hello")
    streamed = [chunk.text for chunk in client.models.generate_content_stream(model=model, contents="hello")]
    return {"texts": [whole.text, "".join(streamed)], "chunks": len(streamed)}


print(
    json.dumps({"session": session, "discovery": discovery, "storage": storage, "genai": genai}[scenario]())
)
