"""Application default credentials: found as google-auth finds them, then whatever kind the file is."""

from __future__ import annotations

import pytest
from tests.credentials.making import (
    TokenEndpoint,
    context,
    entry,
    login_file,
    read_secret,
    served,
    write_secret,
)

from gemini_poold.credentials import registry
from gemini_poold.credentials.base import CredentialError, Failure
from gemini_poold.credentials.typed import default_file
from gemini_poold.errors import UpstreamFailure
from gemini_poold.fake import World
from gemini_poold.transport import Fetched


def make(ctx):
    return registry.build(entry("adc"), ctx)


async def failure_of(credential):
    with pytest.raises(CredentialError) as caught:
        await credential.renew(0.0)
    return caught.value


def test_where_it_is_looked_for(tmp_path):
    """The variable first (even if its file is not there), then gcloud's folder, moved or not, else nothing."""
    gcloud = tmp_path / ".config" / "gcloud"
    moved = write_secret(tmp_path / "moved" / "application_default_credentials.json", {})
    home = {"HOME": str(tmp_path)}
    assert default_file(home) is None
    write_secret(gcloud / "application_default_credentials.json", {})
    assert default_file(home) == gcloud / "application_default_credentials.json"
    assert default_file({**home, "CLOUDSDK_CONFIG": str(moved.parent)}) == moved
    named = {**home, "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere.json"}
    assert str(default_file(named)) == "/nowhere.json"


async def test_gclouds_login(tmp_path):
    """A person's login of gcloud's is renewed, and kept when it rotates."""
    path = write_secret(tmp_path / "gcloud" / "application_default_credentials.json", login_file())
    google = TokenEndpoint()
    google.answer = google.rotating
    credential = make(context(tmp_path, google, environ={"CLOUDSDK_CONFIG": str(path.parent)}))
    token = await credential.renew(0.0)
    assert credential.headers(token)["Authorization"] == "Bearer fake-access-1"
    assert read_secret(path)["refresh_token"] == "fake-refresh-1"
    assert sorted(item.name for item in path.parent.iterdir() if not item.name.endswith(".lock")) == [
        path.name,
        f"{path.name}.1",
    ]


async def test_the_variables_file_of_any_kind(tmp_path):
    """A service account today, a login tomorrow: the type is looked at with every renewal."""
    world = World()
    robot = world.add_service_account("robot", project="p")
    login = world.authorized_user(world.add_user("alice"), world.add_client())
    path = write_secret(tmp_path / "adc.json", robot)
    async with served(tmp_path, world, environ={"GOOGLE_APPLICATION_CREDENTIALS": str(path)}) as (_, ctx):
        credential = make(ctx)
        for content, name in ((robot, "robot"), (login, "alice")):
            write_secret(path, content)
            token = await credential.renew(0.0)
            assert world.tokens[token.value.reveal()].caller.name == name
        assert credential.client


async def test_a_missing_file(tmp_path):
    """Named, with the command that makes it."""
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "nowhere.json")}
    error = await failure_of(make(context(tmp_path, TokenEndpoint(), environ=environ)))
    assert (error.failure, error.hint) == (Failure.SECRET, "gcloud auth application-default login")


class Metadata(TokenEndpoint):
    """A metadata server."""

    def __init__(self, flavor="Google"):
        super().__init__()
        self.headers = {"Metadata-Flavor": flavor} if flavor else {}
        self.asked = []

    async def fetch(self, method, url, *, headers, **more):
        self.asked.append((method, url, headers.get("Metadata-Flavor")))
        return await super().fetch(method, url, headers=headers, **more)


async def test_the_machines_own_token(tmp_path):
    """Without any file the metadata server is asked, at the place that its variable names."""
    google = Metadata()
    environ = {"HOME": str(tmp_path), "GCE_METADATA_HOST": "127.0.0.1:1"}
    token = await make(context(tmp_path, google, environ=environ)).renew(0.0)
    assert token.value.reveal() == "fake-access-1"
    method, url, flavor = google.asked[0]
    assert (method, flavor) == ("GET", "Google")
    assert url.startswith(
        "http://127.0.0.1:1/computeMetadata/v1/instance/service-accounts/default/token?scopes="
    )


async def test_nothing_anywhere(tmp_path):
    """No file and no metadata server (or something else that answers there) says what was looked for."""

    def nobody(_form):
        raise UpstreamFailure("no such name", kind="dns", sent=False)

    for google in (TokenEndpoint(nobody), Metadata(flavor="")):
        error = await failure_of(make(context(tmp_path, google, environ={"HOME": str(tmp_path)})))
        assert error.failure is Failure.SECRET
        assert error.hint == "gcloud auth application-default login"


async def test_a_metadata_server_that_went_away_comes_back(tmp_path):
    """Once seen, its silence is a passing fault."""
    google = Metadata()
    credential = make(context(tmp_path, google, environ={"HOME": str(tmp_path)}))
    await credential.renew(0.0)

    async def silent(*_args, **_more):
        raise UpstreamFailure("no answer", kind="timeout", sent=True)

    good, google.fetch = google.fetch, silent
    assert (await failure_of(credential)).failure is Failure.TRANSIENT
    google.fetch = good
    await credential.renew(0.0)


async def test_a_metadata_server_without_an_account(tmp_path):
    """404 there: no service account is attached; looked at again."""

    class Bare(Metadata):
        async def fetch(self, *_args, **_more):
            return Fetched(404, {"Metadata-Flavor": "Google"}, b"<html>404</html>")

    error = await failure_of(make(context(tmp_path, Bare(), environ={"HOME": str(tmp_path)})))
    assert error.failure is Failure.TRANSIENT


@pytest.mark.parametrize(("variable", "told"), [("", "of-the-file"), ("of-the-variable", "of-the-variable")])
async def test_who_is_billed(tmp_path, variable, told):
    """The variable's quota project wins over the file's, as everywhere with application default credentials."""
    path = write_secret(tmp_path / "adc.json", login_file(quota_project_id="of-the-file"))
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(path), "GOOGLE_CLOUD_QUOTA_PROJECT": variable}
    credential = make(context(tmp_path, TokenEndpoint(), environ=environ))
    assert credential.headers(await credential.renew(0.0))["x-goog-user-project"] == told
