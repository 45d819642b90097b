"""google-genai, unmodified, on what Google keeps: an upload in pieces, its use, caches, interactions."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_poold.fake import World

genai = pytest.importorskip("google.genai")

MODEL = "gemini-2.5-flash"
NAMES = ("a", "b", "c")
CONFIG = '[gateway]\nlisten = "127.0.0.1:0"\n[selection]\nstrategy = "round-robin"\n'


@pytest.mark.filterwarnings("ignore")
def test_the_sdk_works_with_files_caches_and_interactions(tmp_path: Path) -> None:
    """Each goes to the account that has it, with three accounts taking turns otherwise."""
    world = World()
    for name in NAMES:
        world.add_project(f"project-{name}")
        world.add_api_key(name, project=f"project-{name}")
    accounts = "\n".join(map(api_key_account, NAMES))
    with (
        fake_google(world) as google,
        DaemonProcess(tmp_path, fake=google, accounts=accounts, config=CONFIG) as daemon,
    ):
        client = genai.Client(api_key=daemon.key, http_options=genai.types.HttpOptions(base_url=daemon.url))
        file = client.files.upload(file=io.BytesIO(b"z" * (9 << 20)), config={"mime_type": "text/plain"})
        assert file.size_bytes == 9 << 20
        assert (
            len(
                {client.models.generate_content(model=MODEL, contents=[file, "?"]).text[:1] for _ in range(3)}
            )
            == 1
        )
        assert [each.name for each in client.files.list()] == [file.name]
        cache = client.caches.create(model=MODEL, config={"contents": [file], "ttl": "60s"})
        for _ in range(3):
            assert client.models.generate_content(
                model=MODEL, contents="x", config={"cached_content": cache.name}
            ).text
        client.caches.delete(name=cache.name)
        client.files.delete(name=file.name)
        first = client.interactions.create(model=MODEL, input="hello")
        for _ in range(3):
            assert client.interactions.create(model=MODEL, input="more", previous_interaction_id=first.id).id
        stream = client.interactions.create(model=MODEL, input="s", stream=True)
        assert [event.event_type for event in stream][-1] == "interaction.completed"


@pytest.mark.filterwarnings("ignore")
def test_the_sdk_works_with_caches_of_vertex(tmp_path: Path) -> None:
    """The same SDK in its Vertex mode, by the local key: caches go to the account of two that has them."""
    world, accounts, files = World(), "", {}
    for name in ("one", "two"):
        files[name] = world.add_service_account(name, project=f"project-{name}")
        accounts += f"""
[[account]]
id = "{name}"
backend = "vertex"
project = "project-{name}"
credential = {{ type = "service-account", secret = {{ file = "secrets/{name}.json" }} }}
"""
    with fake_google(world) as google:
        daemon = DaemonProcess(tmp_path, fake=google, accounts=accounts, config=CONFIG)
        for name, file in files.items():
            daemon.write_secret(f"{name}.json", json.dumps({**file, "token_uri": world.token_uri}))
        with daemon:
            options = genai.types.HttpOptions(base_url=daemon.url)
            client = genai.Client(vertexai=True, api_key=daemon.key, http_options=options)
            caches = [
                client.caches.create(model=MODEL, config={"contents": ["a long text"], "ttl": "60s"})
                for _ in range(3)
            ]
            for cache in caches:
                assert client.caches.get(name=cache.name).name == cache.name
                for _ in range(3):
                    answer = client.models.generate_content(
                        model=MODEL, contents="x", config={"cached_content": cache.name}
                    )
                    assert answer.text
            assert {each.name for each in client.caches.list()} == {cache.name for cache in caches}
            client.caches.update(name=caches[0].name, config={"ttl": "90s"})
            for cache in caches:
                client.caches.delete(name=cache.name)
            assert not list(client.caches.list())
