"""A new login is put down sealed, once sealing has begun."""

from __future__ import annotations

from tests.credentials.making import TokenEndpoint, context

from gemini_poold.accounts.store import AccountsFile
from gemini_poold.config import SecretRef
from gemini_poold.credentials import sealed
from gemini_poold.credentials.sealer import Sealer
from gemini_poold.credentials.sealing import Scope, seal_all
from gemini_poold.credentials.secret_ref import sealing_key
from gemini_poold.login.keeping import Keeper


async def test_a_new_login_is_sealed(tmp_path, monkeypatch):
    """Nothing of it is in the open, and it reads back."""
    monkeypatch.setattr(sealed, "COST", (1 << 10, 8, 1))
    tmp_path.chmod(0o700)
    seal_all(Scope(tmp_path), b"fake-key", lambda _secret: None)
    key = sealing_key(SecretRef(env="SEAL"), environ={"SEAL": "fake-key"}, state_dir=tmp_path)
    ctx = context(tmp_path, TokenEndpoint(), sealer=Sealer(tmp_path, key))

    async def reload():
        return None

    keeper = Keeper(AccountsFile(tmp_path / "accounts.toml"), lambda: ctx, reload)
    ref = keeper.own_file("work")
    await keeper.write_login(ref, "work", {"refresh_token": "fake-refresh-1"})
    assert sealed.is_sealed((tmp_path / "secrets" / "work.json").read_bytes())
    assert b"fake-refresh-1" in await keeper.open(ref, "work").read()
