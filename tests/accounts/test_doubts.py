"""What is allowed in the files and cannot work together."""

from __future__ import annotations

import pytest

from gemini_poold.accounts.doubts import doubts
from gemini_poold.accounts.schema import parse
from gemini_poold.config import Config, Gateway

ACCOUNTS = """
[[account]]
id = "robot"
backend = "vertex"
project = "p"
credential = { type = "service-account", secret = { file = "robot.json" } }

[[account]]
id = "kept"
backend = "vertex"
project = "q"
lend = false
credential = { type = "service-account", secret = { file = "kept.json" } }

[[account]]
id = "off"
backend = "vertex"
project = "r"
enabled = false
credential = { type = "service-account", secret = { file = "off.json" } }

[[account]]
id = "key"
backend = "developer-api"
credential = { type = "api-key", secret = { env = "KEY" } }
"""


@pytest.mark.parametrize(("whom", "said"), [
    ("", ""), ("robot", ""), ("auto:p", ""),
    ("nobody", "there is no account 'nobody'"), ("key", "only an API key"), ("kept", "lend = false"),
    ("off", "not enabled"), ("auto:q", "no account of project 'q'"), ("auto:r", "'r'"), ("auto:", "''"),
])  # fmt: skip
def test_whose_tokens_the_metadata_server_gives(whom, said):
    """An account or project that can give none is told, by the key that names it."""
    found = doubts(Config(gateway=Gateway(metadata_account=whom)), parse(ACCOUNTS, "accounts.toml"))
    assert len(found) == bool(said)
    assert all(said in each and "metadata_account" in each for each in found)


def test_a_project_may_be_discovered():
    """Where an account's project is not written down, nobody can know yet."""
    accounts = parse(
        '[[account]]\nid = "w"\nbackend = "code-assist"\ncredential = { type = "oauth", secret = { file = "w" } }\n',
        "x",
    )
    assert doubts(Config(gateway=Gateway(metadata_account="auto:any")), accounts) == []
