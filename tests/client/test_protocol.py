"""The client's side of the conversation, without I/O."""

import msgspec
import pytest

from gemini_pool import calls, wire
from gemini_pool.errors import Cancelled, PoolError, ProtocolError
from gemini_pool.framing import Decoder, encode
from gemini_pool.protocol import Session, error_of, is_refused_for_stop, is_reply, result_of


def decoded(frame: bytes) -> dict:
    (message,) = Decoder().feed(frame)
    return msgspec.json.decode(message)


def incoming(**fields) -> wire.Incoming:
    (message,) = Session().receive(encode(msgspec.json.encode(fields)))
    return message


def test_requests_count_up():
    """Ids grow from 1; no parameters are an empty object, and a parameter's default is not sent."""
    session = Session()
    assert session.request("a") == (1, encode(b'{"jsonrpc":"2.0","id":1,"method":"a","params":{}}'))
    number, frame = session.request("pool/acquire", wire.AcquireParams("m", session="s"))
    assert number == 2
    assert decoded(frame)["params"] == {"model": "m", "session": "s"}


def test_notifications_have_no_id():
    """A cancel names its request and wants no answer."""
    message = decoded(Session().cancel(7))
    assert (message["method"], message["params"], "id" in message) == ("$/cancelRequest", {"id": 7}, False)


def test_receive_in_pieces():
    """Messages come out whole, whatever the pieces; notifications and replies are told apart."""
    session = Session()
    stream = encode(b'{"method":"$/progress","params":{"token":1,"value":{"a":[1]}}}') + encode(
        b'{"id":3,"result":{}}'
    )
    messages = [m for i in range(len(stream)) for m in session.receive(stream[i : i + 1])]
    assert [is_reply(m) for m in messages] == [False, True]
    assert calls.PROGRESS.decode(messages[0].params).value == {"a": [1]}
    assert result_of(messages[1], calls.RELEASE) == wire.Empty()


def test_error_data_becomes_attributes():
    """Everything the daemon says about an error is on the exception."""
    data = {
        "code": "all_cooling_down",
        "retryable": True,
        "hint": "h",
        "retry_at": 5.5,
        "account": "a",
        "details": [1],
    }
    message = incoming(id=1, error={"code": -32000, "message": "m", "data": data})
    with pytest.raises(PoolError) as caught:
        result_of(message, calls.STATUS)
    e = caught.value
    assert (e.code, e.message, e.hint, e.retryable, e.retry_at, e.account, e.details, e.rpc_code, e.exit_code) == (
        "all_cooling_down", "m", "h", True, 5.5, "a", [1], -32000, 5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (-32601, "not_found"),
        (-32602, "bad_request"),
        (-32600, "bad_request"),
        (-32700, "bad_request"),
        (-1, "internal"),
    ],
)
def test_errors_without_data(code, word):
    """A server that sends the number alone is understood."""
    assert error_of(wire.ErrorObject(code, "m")).code == word


def test_cancelled_is_its_own_exception():
    """-32800 is what a cancelled request gets."""
    assert isinstance(error_of(wire.ErrorObject(-32800, "m")), Cancelled)


def test_unknown_fields_are_ignored():
    """A newer daemon may say more."""
    message = incoming(id=1, result={"expires_at": 1.0, "ttl_s": 2.0, "colour": "red"}, extra=1)
    assert result_of(message, calls.RENEW) == wire.RenewResult(1.0, 2.0)


@pytest.mark.parametrize(
    "frame", [b"HTTP/1.1 200 OK\r\n\r\n", encode(b"nonsense"), encode(b"[]"), encode(b'{"id":{}}')]
)
def test_not_this_protocol(frame):
    """What is no message of this protocol is a ProtocolError."""
    with pytest.raises(ProtocolError):
        Session().receive(frame)


@pytest.mark.parametrize("fields", [{"id": 1}, {"id": 1, "result": [3]}])
def test_results_of_the_wrong_shape(fields):
    """An answer that is not what was agreed is a ProtocolError that names the method."""
    with pytest.raises(ProtocolError, match="pool/status"):
        result_of(incoming(**fields), calls.STATUS)


def test_an_error_without_an_id_ends_the_connection():
    """The daemon could not read a frame of ours: its word is raised at once."""
    with pytest.raises(PoolError, match="too big") as caught:
        Session().receive(encode(b'{"id":null,"error":{"code":-32600,"message":"too big"}}'))
    assert caught.value.rpc_code == -32600


def test_refused_for_stop():
    """Only `shutting_down` says that nothing was done."""
    yes = {"code": -32000, "message": "m", "data": {"code": "shutting_down"}}
    assert is_refused_for_stop(incoming(id=1, error=yes))
    assert not is_refused_for_stop(incoming(id=1, error={**yes, "data": {"code": "overloaded"}}))
    assert not is_refused_for_stop(incoming(id=1, error={"code": -32000, "message": "m"}))
    assert not is_refused_for_stop(incoming(id=1, result={}))


def test_generate_params():
    """A string is a prompt, a mapping a body, bytes a body that goes as it is."""
    params = calls.generate_params("m", "hi", {"wait_s": 1}, method="generateContent")
    assert params == {
        "model": "m", "method": "generateContent", "wait_s": 1,
        "request": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
    }  # fmt: skip
    params = calls.generate_params("m", b'{"a": 1}', {}, method="x", token=3)
    assert msgspec.json.encode(params) == b'{"model":"m","request":{"a": 1},"method":"x","token":3}'


def test_report_params():
    """Any library's headers and bodies are taken; a lease is named by its id."""
    lease = wire.Lease("l", "r", "a", "vertex", "vx", "u", {}, 1.0, 1.0, "", "")
    params = calls.report_params(lease, {"status": 429, "headers": {"A": 3}, "body": b"\xff"})
    assert (params.lease, params.headers, params.body) == ("l", {"A": "3"}, "\ufffd")
    assert calls.report_params("x", {}) == wire.ReportParams("x")


def test_leases_in_replies():
    """Which leases a late reply brings."""
    lease = msgspec.to_builtins(wire.Lease("l", "r", "a", "vertex", "vx", "u", {}, 1.0, 1.0, "", ""))
    assert calls.leases_in("pool/acquire", incoming(id=1, result=lease)) == ("l",)
    assert calls.leases_in("pool/acquire", incoming(id=1, error={"code": 1, "message": ""})) == ()
    retry = {"next": "retry", "reason": "", "lease": lease}
    assert calls.leases_in("pool/report", incoming(id=1, result=retry)) == ("l",)
    assert calls.leases_in("pool/report", incoming(id=1, result={"next": "done", "reason": ""})) == ()
    assert calls.leases_in("pool/status", incoming(id=1, result={})) == ()
