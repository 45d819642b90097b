"""What the end of a `with pool.lease()` block tells, for the exceptions of real libraries."""

import asyncio
import email.message
import io
import socket
import urllib.error

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from gemini_pool.lease import report_for


def test_no_error_is_a_plain_report():
    """A block that ended well says so and no more."""
    assert report_for(None) == {}


def test_urllib():
    """urllib's HTTPError is the answer itself: status, headers, body."""
    headers = email.message.Message()
    headers["Retry-After"] = "7"
    error = urllib.error.HTTPError("u", 429, "Too Many", headers, io.BytesIO(b"slow \xff"))
    assert report_for(error) == {"status": 429, "headers": {"Retry-After": "7"}, "body": "slow \ufffd"}
    error.close()


def test_aiohttp():
    """aiohttp's ClientResponseError has status and headers; its connection errors say that no answer came."""
    info = aiohttp.RequestInfo(URL("http://x"), "POST", CIMultiDict(), URL("http://x"))
    error = aiohttp.ClientResponseError(info, (), status=503, headers=CIMultiDict({"A": "b"}))
    assert report_for(error) == {"status": 503, "headers": {"A": "b"}, "body": ""}
    assert report_for(aiohttp.ServerDisconnectedError())["error"].startswith("ServerDisconnectedError")


@pytest.mark.parametrize("kind", ["requests", "httpx"])
def test_errors_that_hold_a_response(kind):
    """requests' HTTPError and httpx's HTTPStatusError hold the answer."""

    class Response:
        status_code = 403
        headers = {"A": "b"}
        text = "no"

    class HTTPStatusError(OSError if kind == "requests" else Exception):
        response = Response()

    assert report_for(HTTPStatusError()) == {"status": 403, "headers": {"A": "b"}, "body": "no"}


def test_a_body_that_cannot_be_read():
    """A stream that was not read has no body to report; the status is worth it alone."""

    class Response:
        status_code = 500
        headers = None

        @property
        def text(self):
            raise RuntimeError("not read")

    class HTTPStatusError(Exception):
        response = Response()

    assert report_for(HTTPStatusError()) == {"status": 500, "headers": {}, "body": ""}


@pytest.mark.parametrize("error", [TimeoutError("slow"), ConnectionResetError(), socket.gaierror(-2, "name")])
def test_network_errors(error):
    """No answer came, and why."""
    assert type(error).__name__ in report_for(error)["error"]


def test_httpx_transport_errors():
    """httpx's are no OSErrors, but have a family name."""

    class TransportError(Exception): ...

    class ReadTimeout(TransportError): ...

    assert report_for(ReadTimeout("x")) == {"error": "ReadTimeout: x"}


@pytest.mark.parametrize(
    "error",
    [ValueError("mine"), KeyboardInterrupt(), asyncio.CancelledError(), SystemExit(3), ZeroDivisionError()],
)
def test_everything_else_gives_the_lease_back(error):
    """A program's own failure says nothing about the account."""
    assert report_for(error) is None
