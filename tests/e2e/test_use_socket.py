"""`[rpc] use_socket`: a second socket for sandboxes, which serves asking and not managing."""

import stat

import pytest
from tests.fakes.daemon import DaemonProcess, api_key_account, fake_google

from gemini_pool import Pool, PoolError
from gemini_poold.fake import World

MODEL = "gemini-2.5-flash"


def test_the_use_socket_serves_the_scope_use(tmp_path):
    """A bare name lies beside the RPC socket, mode 0600; requests are served, accounts are out of reach; a stop
    removes it."""
    world = World()
    world.add_api_key("key-a")
    with fake_google(world) as google:
        config = '[rpc]\nuse_socket = "pool-use.sock"\n'
        daemon = DaemonProcess(tmp_path, fake=google, accounts=api_key_account("key-a"), config=config)
        with daemon:
            use = daemon.socket.parent / "pool-use.sock"
            assert stat.S_IMODE(use.stat().st_mode) == 0o600
            with Pool(use) as pool:
                assert pool.generate(MODEL, "hello")["candidates"]
                methods = pool.initialize().methods
                assert not [name for name in methods if name.startswith(("account/", "daemon/"))]
                assert "pool/pause" not in methods
                for refused in (pool.info, pool.reload, pool.accounts, pool.pause):
                    with pytest.raises(PoolError) as caught:
                        refused()
                    assert caught.value.code == "not_found"
            with daemon.pool() as pool:
                assert pool.info().socket == str(daemon.socket)
        assert not use.exists()


def test_without_the_key_there_is_no_use_socket(tmp_path):
    """It is opt-in."""
    with DaemonProcess(tmp_path) as daemon:
        assert not (daemon.socket.parent / "pool-use.sock").exists()
