"""Bytes from outside that are no JSON: every reader of them is ready for invalid UTF-8 as well as for broken syntax."""

import ast
from pathlib import Path

import msgspec
import pytest

from gemini_poold.errors import UNREADABLE

ROOT = Path(__file__).parents[2] / "daemon/gemini_poold"


@pytest.mark.parametrize("body", [b'{"a": ', b'{"a": "\xff"}', b'{"\xff": 1}', b"\xff", b"[" * 5000])
def test_whatever_msgspec_raises_is_in_it(body):
    """Broken syntax, invalid UTF-8 in a value, in a key or outside, and nesting without an end."""
    with pytest.raises(UNREADABLE):
        msgspec.json.decode(body)


def test_no_reader_is_narrower():
    """An `except` that expects a DecodeError expects a UnicodeDecodeError, too: msgspec raises both."""
    narrow = []
    for path in sorted(ROOT.rglob("*.py")):
        if path.is_relative_to(ROOT / "fake") or path.is_relative_to(ROOT / "demo"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                names = ast.unparse(node.type)
                if "DecodeError" in names.replace("UnicodeDecodeError", "").replace(
                    "TOMLDecodeError", ""
                ) and ("UnicodeDecodeError" not in names):
                    narrow.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not narrow
