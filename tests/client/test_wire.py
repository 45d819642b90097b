"""The Structs of the wire: what is sent, what is tolerated."""

import inspect

import msgspec
import pytest

from gemini_pool import wire

STRUCTS = [
    value
    for _, value in inspect.getmembers(wire, inspect.isclass)
    if issubclass(value, msgspec.Struct)
    and value.__module__ == wire.__name__
    and not value.__name__.startswith("_")
]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda s: s.__name__)
def test_every_struct_can_be_decoded(struct):
    """Annotations resolve, and unknown fields of a newer end are ignored."""
    msgspec.json.Decoder(struct)
    assert not struct.__struct_config__.forbid_unknown_fields


def test_defaults_of_parameters_are_not_sent():
    """A request is as small as what it says."""
    assert msgspec.json.encode(wire.AcquireParams("m")) == b'{"model":"m"}'
    assert msgspec.json.encode(wire.SubscribeParams()) == b"{}"
    assert msgspec.json.encode(wire.ReportParams("l", status=200)) == b'{"lease":"l","status":200}'


def test_results_are_sent_whole():
    """A script sees which fields there are."""
    sent = msgspec.to_builtins(wire.ReportResult("done", ""))
    assert sent == {"next": "done", "reason": "", "lease": None, "retry_at": None}


def test_a_request_body_is_not_touched():
    """The body of `pool/generate` is raw JSON on both ends."""
    params = msgspec.json.decode(b'{"model":"m","request":{"a" : [1, 2.50]}}', type=wire.GenerateParams)
    assert bytes(params.request) == b'{"a" : [1, 2.50]}'
    assert b'{"a" : [1, 2.50]}' in msgspec.json.encode(params)
