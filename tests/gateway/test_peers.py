"""Whose a loopback connection is, as the kernel's table says."""

import socket
import sys

import pytest

from gemini_poold.gateway.peers import is_our_connection, uid_of, written

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2256 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1
   1: 0100007F:9C40 0100007F:2256 01 00000000:00000000 00:00000000 00000000  1001        0 2 1
   2: 0100007F:2256 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 3 1
   3: 0100007F:9C41 0100007F:2256 06 00000000:00000000 00:00000000 00000000  1000        0 0 1
"""
little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="the table is a little-endian machine's")


@little_endian
@pytest.mark.parametrize(("port", "uid"), [(40000, 1001), (40001, None), (40002, None)])
def test_the_owner_of_the_other_end(port, uid):
    """The connected socket of the client counts: neither ours, nor one that is closing."""
    assert uid_of(TABLE.splitlines(), ("127.0.0.1", port), ("127.0.0.1", 0x2256)) == uid


@little_endian
def test_addresses_as_the_kernel_writes_them():
    """Both families, in the machine's byte order."""
    assert written("127.0.0.1", 8790) == "0100007F:2256"
    assert written("::1", 80) == "00000000000000000000000001000000:0050"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_real_connection_of_ours():
    """The table of this machine says that our own connection is ours, and knows nothing of one that is not there."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        own = server.getsockname()
        assert is_our_connection(client.getsockname(), own)
        assert not is_our_connection(("127.0.0.1", 1), own)
