"""The gateway's keys as the configuration names them."""

import stat

import pytest

from gemini_poold.config import Gateway, GatewayClient, SecretRef
from gemini_poold.errors import PoolError
from gemini_poold.gateway.keys import load


@pytest.fixture
def state_dir(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path


async def test_the_default_key_is_made_once(state_dir):
    """A private file at the first start, read again at the next."""
    await load(Gateway(), state_dir=state_dir, environ={})
    path = state_dir / "gateway.key"
    made = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keys = await load(Gateway(), state_dir=state_dir, environ={})
    assert path.read_text().strip() == made
    assert keys.client_of(made).name == "default"


async def test_named_clients(state_dir):
    """Further keys carry their client's name and limits."""
    ci = GatewayClient(name="ci", key=SecretRef(env="CI_KEY"), rpm=60, models=("gemini-3*",))
    keys = await load(Gateway(clients=(ci,)), state_dir=state_dir, environ={"CI_KEY": "fake-key-ci"})
    client = keys.client_of("fake-key-ci")
    assert (client.name, client.rpm, client.models) == ("ci", 60, ("gemini-3*",))


async def test_a_key_that_cannot_be_read_opens_nothing(state_dir):
    """It is told with what to do; the other keys work, and a file that is another's is not replaced."""
    (state_dir / "gateway.key").write_text("fake-key-loose")
    (state_dir / "gateway.key").chmod(0o644)
    missing = GatewayClient(name="gone", key=SecretRef(env="NOT_SET"))
    fine = GatewayClient(name="fine", key=SecretRef(env="FINE"))
    keys = await load(
        Gateway(clients=(missing, fine)), state_dir=state_dir, environ={"FINE": "fake-key-fine"}
    )
    assert keys.client_of("fake-key-fine").name == "fine"
    for presented in ("fake-key-loose", ""):
        with pytest.raises(PoolError):
            keys.client_of(presented)
    told = "; ".join(map(str, keys.problems))
    assert "chmod 600" in told
    assert "NOT_SET" in told
    assert "fake-key" not in told
