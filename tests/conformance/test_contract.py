"""The page that clients are written from says what `openrpc.json` says, and so do the clients' own lists."""

import json
import re
from pathlib import Path

import pytest

CLIENTS = Path(__file__).parents[2] / "client"
DOCUMENT = json.loads((CLIENTS / "openrpc.json").read_text(encoding="utf-8"))
METHODS = {method["name"]: method for method in DOCUMENT["methods"]}
REPEATABLE = {name for name, method in METHODS.items() if method.get("x-repeatable")}
WIRE, PYTHON = (CLIENTS / "README.md").read_text(encoding="utf-8").split("# The Python client")


def rows(title):
    """A section's table: the cells of each row but the head."""
    section = WIRE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def listed():
    """Each method of the table, with the cell that tells of it, and whether it is the first of its row."""
    for names, told in rows("Methods"):
        for at, name in enumerate(re.findall(r"`([^`]+)`", names)):
            yield name, told, at == 0


def test_every_method_is_on_the_page():
    """No method is missing there, and none that does not exist is told of."""
    assert sorted(name for name, _, _ in listed()) == sorted(METHODS)


@pytest.mark.parametrize(
    ("name", "told"), [(name, told) for name, told, first in listed() if first and told.startswith("`{")]
)
def test_the_parameters_are_those_of_the_document(name, told):
    """Names, and which may be left out; a list that ends in dots may lack some, but no required one."""
    given = told[1:].split("`", 1)[0]
    top = re.sub(r"(?<=.)(\{[^{}]*\}|\[[^\[\]]*\])", "", given)
    found = dict(re.findall(r"(\w+)(\??)", top))
    wanted = {each["name"]: each["required"] for each in METHODS[name]["params"]}
    assert found.keys() <= wanted.keys()
    assert {one for one in found if not found[one]} == {one for one in wanted if wanted[one]}
    if "…" not in given:
        assert found.keys() == wanted.keys()


def test_every_notification_is_on_the_page():
    """With its fields, whoever sends it."""
    schemas = DOCUMENT["components"]["schemas"]
    told = {cells[0].strip("`"): cells[1] for cells in rows("Notifications from the daemon")}
    sent = {
        each["name"]: each["params"]["$ref"]
        for each in DOCUMENT["x-notifications"]
        if each["from"] == "daemon"
    }
    assert told.keys() == sent.keys()
    for name, ref in sent.items():
        fields = re.findall(r"\w+", told[name][1:].split("`", 1)[0])
        assert sorted(fields) == sorted(schemas[ref.rpartition("/")[2]]["properties"]), name
    assert "`$/cancelRequest {id}`" in WIRE


def test_every_error_word_is_on_the_page():
    """And no other."""
    words = {
        word
        for cells in rows("Errors")
        for word in re.findall(r"`([a-z_]+)`", cells[-1 if "32" in cells[0] else 0])
    }
    assert words == {*DOCUMENT["x-error-words"], "internal", "cancelled"}


@pytest.mark.parametrize(
    ("file", "begins", "ends"),
    [
        ("neovim/lua/gemini_pool/rpc.lua", "REPEATABLE = {}", "}) do"),
        ("emacs/gemini-pool.el", "gemini-pool--repeatable", ")"),
        ("typescript/index.js", "HARMLESS = new Set([", "])"),
    ],
)
def test_clients_repeat_what_may_be_repeated(file, begins, ends):
    """After a lost connection: the methods that are marked so in the document, and no other."""
    text = (CLIENTS / file).read_text(encoding="utf-8").split(begins, 1)[1].split(ends, 1)[0]
    assert set(re.findall(r"""["']((?:\w+/)?\w+)["']""", text)) == REPEATABLE


def test_the_page_says_what_is_repeated():
    """As the Python client's methods are called."""
    told = re.search(r"only where that is harmless: ([^;]*);", PYTHON).group(1)
    names = {name.rpartition("/")[2] for name in REPEATABLE}
    assert set(re.findall(r"`(\w+)`", told)) == {"accounts" if name == "list" else name for name in names}
