"""The OpenRPC document: the committed one is what the code makes, and says what a client needs."""

import json
from pathlib import Path

import pytest

from gemini_poold.ipc import openrpc
from gemini_poold.ipc.verbs import VERBS

FILE = Path(__file__).parents[2] / "client" / "openrpc.json"


def test_the_committed_document_is_what_the_code_makes():
    """A verb or field that is added appears in the file that other languages make their types from."""
    assert FILE.read_text(encoding="utf-8") == openrpc.text(), (
        "make it anew: python -m gemini_poold.ipc.openrpc > client/openrpc.json"
    )


def test_every_verb_stands_in_it_with_its_scope():
    """Method by method as the server has them, params and result as schemas that the document itself holds."""
    document = openrpc.document()
    assert {m["name"]: m["x-scope"] for m in document["methods"]} == {v: VERBS[v].scope for v in VERBS}
    schemas = document["components"]["schemas"]

    def references(value):
        if isinstance(value, dict):
            yield from [value["$ref"]] if "$ref" in value else []
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                yield from references(item)

    found = {ref.rpartition("/")[2] for ref in references(document)}
    assert found <= {*schemas, *document["components"]["errors"]}
    assert {"Lease", "AcquireParams", "ErrorData", "Event", "Draining"} <= found


@pytest.mark.parametrize(
    ("method", "required"),
    [("pool/acquire", {"model"}), ("pool/generate", {"model", "request"}), ("pool/status", set())],
)
def test_required_params(method, required):
    """What has no default must be given, nothing else."""
    (found,) = [m for m in openrpc.document()["methods"] if m["name"] == method]
    assert {p["name"] for p in found["params"] if p["required"]} == required


def test_it_is_json_without_any_place_of_a_machine():
    """The text is JSON and names nothing of where it was made."""
    text = openrpc.text()
    assert json.loads(text)["x-error-words"]["all_cooling_down"] == {"retryable": True}
    assert str(Path.home()) not in text
