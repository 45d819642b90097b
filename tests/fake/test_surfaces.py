"""The calls beside generate: model lists, counting, embedding, the small ones of Code Assist."""

from __future__ import annotations

from tests.fake.asking import CA, GL, KEY, VX, Asker, prompt

from gemini_poold.fake import World

EMBED = "/v1beta/models/gemini-embedding-001"


async def test_models_in_pages(asker: Asker) -> None:
    """All models, page by page, each with its methods; one alone; an unknown one is 404."""
    names, token = [], ""
    while True:
        page = (await asker.get(f"/v1beta/models?pageSize=5&pageToken={token}", KEY)).json
        names += [model["name"] for model in page["models"]]
        token = page.get("nextPageToken", "")
        if not token:
            break
    assert len(set(names)) == len(names) == len(asker.fake.world.models)
    one = (await asker.get("/v1/models/gemini-2.5-pro", KEY)).json
    assert (one["name"], "generateContent" in one["supportedGenerationMethods"]) == (
        "models/gemini-2.5-pro",
        True,
    )
    assert (await asker.get("/v1alpha/models/gemini-9", KEY)).status == 404
    assert (await asker.get("/v1beta/models")).status == 403


async def test_count_tokens(asker: Asker, world: World, login: dict[str, str], robot: dict[str, str]) -> None:
    """Each backend counts in its own form."""
    text = prompt("a" * 40)
    gl = await asker.post(f"{GL}:countTokens", text, KEY)
    assert gl.json["totalTokens"] == 10
    whole = {"generateContentRequest": {"model": "models/gemini-2.5-flash", **text}}
    assert (await asker.post(f"{GL}:countTokens", whole, KEY)).json["totalTokens"] == 10
    auth = {"Authorization": f"Bearer {world.issue(world.service_account('robot')).token}"}
    vx = await asker.post(f"{VX}:countTokens", text, auth)
    assert (vx.json["totalTokens"], vx.json["totalBillableCharacters"]) == (10, 40)
    auth = await asker.bearer(login)
    ca = await asker.post(
        f"{CA}:countTokens", {"request": {"model": "models/gemini-2.5-flash", **text}}, auth
    )
    assert ca.json == {"totalTokens": 10}
    bare = await asker.post(f"{CA}:countTokens", {"request": {"model": "gemini-2.5-flash", **text}}, auth)
    assert bare.status == 400


async def test_embed(asker: Asker) -> None:
    """One and many, always the same numbers for the same text; the models must agree."""
    content = {"parts": [{"text": "x"}]}
    one = await asker.post(f"{EMBED}:embedContent", {"content": content, "outputDimensionality": 8}, KEY)
    assert len(one.json["embedding"]["values"]) == 8
    request = {"model": "models/gemini-embedding-001", "content": content, "output_dimensionality": 8}
    many = await asker.post(f"{EMBED}:batchEmbedContents", {"requests": [request, request]}, KEY)
    assert many.json["embeddings"] == [one.json["embedding"]] * 2
    other = {"requests": [{"model": "models/other", "content": content}]}
    assert (await asker.post(f"{EMBED}:batchEmbedContents", other, KEY)).status == 400
    assert (await asker.post(f"{EMBED}:embedContent", {"content": {"parts": []}}, KEY)).status == 400


async def test_vertex_embeds_and_lists(asker: Asker, world: World, robot: dict[str, str]) -> None:
    """Predict in the classic form, embedContent in the new one, and the list of publisher models."""
    auth = {"Authorization": f"Bearer {world.issue(world.service_account('robot')).token}"}
    path = VX.replace("gemini-2.5-flash", "gemini-embedding-001")
    body = {"instances": [{"content": "x"}, {"content": "y"}], "parameters": {"outputDimensionality": 8}}
    got = await asker.post(f"{path}:predict", body, auth)
    assert [len(each["embeddings"]["values"]) for each in got.json["predictions"]] == [8, 8]
    new = await asker.post(
        f"{path}:embedContent", {"content": {"parts": [{"text": "x"}]}, "outputDimensionality": 8}, auth
    )
    assert new.json["embedding"]["values"] == got.json["predictions"][0]["embeddings"]["values"]
    listed = await asker.get("/v1beta1/publishers/google/models", auth)
    assert {
        "name": "publishers/google/models/gemini-2.5-pro",
        "versionId": "default",
        "launchStage": "GA",
    } in listed.json["publisherModels"]


async def test_small_calls_of_code_assist(asker: Asker, login: dict[str, str]) -> None:
    """Experiments, admin controls, metrics and settings answer as a client expects."""
    auth = await asker.bearer(login)
    assert "flags" in (await asker.post(f"{CA}:listExperiments", {"project": "p"}, auth)).json
    assert (await asker.post(f"{CA}:fetchAdminControls", {"project": "p"}, auth)).json[
        "adminControlsApplicable"
    ]
    assert (await asker.post(f"{CA}:recordCodeAssistMetrics", {"project": "p"}, auth)).json == {}
    setting = f"{CA}:getCodeAssistGlobalUserSetting"
    assert (await asker.get(setting, auth)).json["cloudaicompanionProject"] == "alice-project"
