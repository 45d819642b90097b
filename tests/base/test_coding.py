"""Who takes gzip, and what a compressed answer says."""

import gzip

import pytest

from gemini_poold import coding


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("", False),
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP;q=0.8, *;q=0.1", True),
        ("*", True),
        ("*;q=0.5", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("*;q=0", False),
        ("deflate, br", False),
    ],
)
def test_who_takes_gzip(accepted, takes):
    """As RFC 9110 weighs it: named, or anything, and not ruled out."""
    assert coding.takes_gzip(accepted) is takes


@pytest.mark.parametrize(
    ("body", "named", "plain"),
    [
        (gzip.compress(b"hello"), "gzip", b"hello"),
        (gzip.compress(b"hello"), "X-GZIP", b"hello"),
        (b"hello", "", b"hello"),
        (b"hello", "gzip", b"hello"),
        (b"hello", "br", b"hello"),
        (gzip.compress(b"hello")[:-9], "gzip", b"hello"),
    ],
)
def test_what_it_says(body, named, plain):
    """What is not what its header says, or no gzip at all, stays what it is."""
    assert coding.plain(body, named, 1000) == plain


def test_it_never_grows_beyond_the_limit():
    """A small answer may unpack to a large one."""
    assert coding.plain(gzip.compress(b"x" * (64 << 20)), "gzip", 1000) == b"x" * 1000
