"""What goes on to Google of a request that is passed through: made anew of what was judged, and no credential in it."""

import pytest

from gemini_pool.errors import PoolError
from gemini_poold.gateway import onward


@pytest.mark.parametrize(
    ("decoded", "sent"),
    [
        ("/v1beta/files/abc", "/v1beta/files/abc"),
        ("/v1beta/files/abc:download", "/v1beta/files/abc:download"),
        ("/v1beta/files/a b", "/v1beta/files/a%20b"),
        ("/v1beta/files/a?key=1", "/v1beta/files/a%3Fkey=1"),
        ("/v1beta/files/a#b", "/v1beta/files/a%23b"),
        ("/v1beta/files/a%2fb", "/v1beta/files/a%252fb"),
        ("/v1beta/files/ä", "/v1beta/files/%C3%A4"),
    ],
)
def test_paths(decoded, sent):
    """Whatever would mean something in a URL is quoted."""
    assert onward.path(decoded) == sent


@pytest.mark.parametrize(
    "decoded",
    [
        "/v1beta/files/../models/m:generateContent",
        "/v1beta/files/./x",
        "/v1beta//files",
        "/v1beta/files/",
        "/v1beta/files/a\\b",
        "/v1beta/files/a\r\nX-A: b",
        "/v1beta/files/a\x00",
        "//evil.example/v1beta/files",
    ],
)
def test_paths_that_leave_their_place(decoded):
    """Dots, empty segments, control characters, backslashes: refused, not mended."""
    with pytest.raises(PoolError) as caught:
        onward.path(decoded)
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize(
    "raw",
    [
        "key=secret", "access_token=secret", "oauth_token=secret", "%6bey=secret", "Key=secret", "$key=secret",
        "%24httpHeaders=Authorization:secret", "$httpMethod=secret", "bearer_token=secret", "%24.key=secret",
    ],
)  # fmt: skip
def test_credentials_in_queries(raw):
    """However they are spelt; what stands beside them goes on."""
    assert onward.query(f"pageSize=2&{raw}&alt=sse&x=") == [("pageSize", "2"), ("alt", "sse"), ("x", "")]


def test_queries_are_written_anew():
    """A line break or an ampersand in a value stays in the value."""
    query = onward.query("a=1%0d%0aX-A:b&b=x%26key%3d1", ("gone",))
    assert onward.with_query("/p", query) == "/p?a=1%0D%0AX-A%3Ab&b=x%26key%3D1"
    assert onward.with_query("/p", []) == "/p"


def test_headers_of_this_hop_stay():
    """Only what is asked for, and nothing that `Connection` names, in whatever case."""
    given = {"Range": "bytes=0-1", "Accept": "*/*", "Cookie": "c", "Connection": "close, accept"}
    assert onward.headers(given, ("Range", "Accept", "If-Match")) == {"Range": "bytes=0-1"}
    assert onward.headers({"Accept": "a,\tb"}, ("Accept",)) == {"Accept": "a,\tb"}


@pytest.mark.parametrize("value", ["caf\xe9", "\udce9", "a\nb", "a\x7f"])
def test_headers_that_cannot_be_sent(value):
    """They would fail on the way to Google and count against the account."""
    with pytest.raises(PoolError) as caught:
        onward.headers({"Accept": value}, ("Accept",))
    assert caught.value.code == "bad_request"
