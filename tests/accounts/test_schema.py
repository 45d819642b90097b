"""The accounts file's schema: what a file means, what is refused, and where an error stands."""

from __future__ import annotations

import pytest

from gemini_poold.accounts.schema import parse, to_model
from gemini_poold.config import SecretRef
from gemini_poold.core.model import Account, Backend, Cost, DailyCap, Data, Limits
from gemini_poold.errors import ConfigInvalid

FULL = """\
[[account]]
id = "work"                       # required, unique
backend = "code-assist"           # required
credential = { type = "oauth", secret = { file = "secrets/work.json" } }
project = "my-gcp-project"
quota_group = ""
location = "global"
enabled = true
priority = 0
weight = 1.0
models = ["gemini-3*"]
limits = { rpm = 10, rpd = 250, tpm = 250000 }
daily_cap = { requests = 500, tokens = 2000000 }
reserve = 0.05
cost = "licensed"
data = "no-training"
lend = true
client_origin = "own"
accepted_terms_risk = ""
proxy = ""

[[account]]
id = "key-a"
backend = "developer-api"
credential = { type = "api-key", secret = { env = "GEMINI_API_KEY" } }
"""

KEY = 'credential = { type = "api-key", secret = { env = "K" } }'
LOGIN = 'credential = { type = "oauth", secret = { file = "secrets/a.json" } }'


def account(body: str, *, id: str = "a") -> str:
    return f'[[account]]\nid = "{id}"\n{body}\n'


def refused(text: str) -> ConfigInvalid:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text, "accounts.toml")
    return caught.value


def test_the_readmes_file_means_what_it_says() -> None:
    """Every key of the documented example is taken; what is left out has the documented default."""
    work, key = (to_model(entry) for entry in parse(FULL, "f"))
    assert work == Account(
        id="work",
        backend=Backend.CODE_ASSIST,
        credential="oauth",
        project="my-gcp-project",
        models=("gemini-3*",),
        limits=Limits(10, 250, 250000),
        daily_cap=DailyCap(500, 2000000),
        reserve=0.05,
        cost=Cost.LICENSED,
        data=Data.NO_TRAINING,
        lend=True,
    )
    assert key == Account(id="key-a", backend=Backend.DEVELOPER_API, credential="api-key")
    assert (key.cost, key.data, key.lend) == (Cost.FREE, Data.MAY_TRAIN, False)


@pytest.mark.parametrize(
    ("body", "cost", "data", "lend"),
    [
        (f'backend = "developer-api"\n{KEY}', "free", "may-train", False),
        (f'backend = "developer-api"\n{LOGIN}', "free", "no-training", True),
        (f'backend = "code-assist"\n{LOGIN}', "licensed", "no-training", True),
        (f'backend = "vertex"\nproject = "p"\n{LOGIN}', "paid", "no-training", True),
        (f'backend = "vertex"\n{KEY}', "paid", "may-train", False),
        (
            f'backend = "developer-api"\ncost = "paid"\ndata = "no-training"\nlend = true\n{KEY}',
            "paid",
            "no-training",
            True,
        ),
        (
            f'backend = "vertex"\nproject = "p"\nlend = false\ncost = "free"\n{LOGIN}',
            "free",
            "no-training",
            False,
        ),
    ],
)
def test_defaults_depend_on_backend_and_credential(body: str, cost: str, data: str, lend: bool) -> None:
    """Cost follows the backend, data class and lending follow the credential; what the user says wins."""
    model = to_model(parse(account(body), "f")[0])
    assert (model.cost, model.data, model.lend) == (cost, data, lend)


@pytest.mark.parametrize(
    ("credential", "secret", "target", "scopes"),
    [
        ('{ type = "oauth", secret = { file = "a" } }', SecretRef(file="a"), "", ()),
        ('{ type = "api-key", secret = { keyring = "s/n" } }', SecretRef(keyring="s/n"), "", ()),
        (
            '{ type = "service-account", secret = { command = ["pass", "x"] } }',
            SecretRef(command=("pass", "x")),
            "",
            (),
        ),
        ('{ type = "adc" }', None, "", ()),
        (
            '{ type = "adc", secret = { file = "a" }, scopes = ["s1", "s2"] }',
            SecretRef(file="a"),
            "",
            ("s1", "s2"),
        ),
        ('{ type = "external", secret = { file = "a" } }', SecretRef(file="a"), "", ()),
        ('{ type = "impersonated", target = "sa@p.example" }', None, "sa@p.example", ()),
        (
            '{ type = "impersonated", target = "sa@p", secret = { systemd-credential = "c" } }',
            SecretRef(systemd_credential="c"),
            "sa@p",
            (),
        ),
    ],
)
def test_every_kind_of_credential(
    credential: str, secret: SecretRef | None, target: str, scopes: tuple[str, ...]
) -> None:
    """Each kind with the keys it needs; the entry keeps the reference, the target and the scopes."""
    entry = parse(account(f'backend = "vertex"\nproject = "p"\ncredential = {credential}'), "f")[0]
    assert (entry.credential.secret, entry.credential.target, entry.credential.scopes) == (
        secret,
        target,
        scopes,
    )


def test_no_accounts_is_a_valid_file() -> None:
    """An empty file, or one with comments only, is a pool without accounts."""
    assert parse("", "f") == []
    assert parse("# nothing yet\n", "f") == []


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        (account(f'backnd = "vertex"\n{KEY}'), 3, "account[1].backnd", "unknown key account[1].backnd"),
        (account(KEY), 1, "account[1].backend", "backend is missing"),
        (account('backend = "vertex"'), 1, "account[1].credential", "credential is missing"),
        (f'[[account]]\nbackend = "vertex"\n{KEY}', 1, "account[1].id", "id is missing"),
        (account(f'backend = "bedrock"\n{KEY}'), 3, "account[1].backend", "invalid enum value"),
        (account(f'backend = "vertex"\n{KEY}', id="Work"), 2, "account[1].id", "matching regex"),
        (account(f'backend = "vertex"\n{KEY}', id=""), 2, "account[1].id", "matching regex"),
        (account(f'backend = "vertex"\n{KEY}', id="a\\n"), 2, "account[1].id", "matching regex"),
        (account(f'backend = "vertex"\n{KEY}', id="a" * 65), 2, "account[1].id", "matching regex"),
        (
            account(f'backend = "vertex"\n{LOGIN}'),
            3,
            "account[1].backend",
            'backend "vertex" needs a project',
        ),
        (
            account(f'backend = "vertex"\nproject = "p"\nlocation = ""\n{LOGIN}'),
            5,
            "account[1].location",
            "location is a region",
        ),
        (
            account(f'backend = "code-assist"\n{KEY}'),
            3,
            "account[1].backend",
            'takes no credential of type "api-key"',
        ),
        (
            account('backend = "code-assist"\ncredential = {type="service-account", secret={file="a"}}'),
            3,
            "account[1].backend",
            "only: adc, oauth",
        ),
        (
            account(f'backend = "developer-api"\nlocation = "us"\n{KEY}'),
            4,
            "account[1].location",
            "location belongs to",
        ),
        (
            account(f'backend = "code-assist"\nquota_group = "x"\n{LOGIN}'),
            4,
            "account[1].quota_group",
            "quota_group belongs to",
        ),
        (
            account('backend = "vertex"\ncredential = "api-key"'),
            4,
            "account[1].credential",
            "expected `object`",
        ),
        (
            account('backend = "vertex"\ncredential = {type="magic"}'),
            4,
            "account[1].credential.type",
            "invalid enum",
        ),
        (
            account('backend = "vertex"\ncredential = {secret={env="K"}}'),
            4,
            "account[1].credential.type",
            "missing",
        ),
        (
            account('backend = "developer-api"\ncredential = {type="api-key"}'),
            4,
            "account[1].credential.type",
            "needs a secret",
        ),
        (
            account('backend = "developer-api"\ncredential = {type="adc",target="a@b"}'),
            4,
            "account[1].credential.target",
            "target belongs",
        ),
        (
            account('backend = "vertex"\ncredential = {type="impersonated"}'),
            4,
            "account[1].credential.type",
            "needs target",
        ),
        (
            account('backend = "vertex"\ncredential = {type="impersonated",target="x"}'),
            4,
            "account[1].credential.type",
            "needs target",
        ),
        (
            account('backend = "vertex"\ncredential = {type="adc",scope=["a"]}'),
            4,
            "account[1].credential.scope",
            "unknown key",
        ),
        (
            account('backend = "vertex"\ncredential = {type="api-key",secret={file="a",env="b"}}'),
            4,
            "account[1].credential.secret",
            "exactly one of",
        ),
        (account(f'backend = "vertex"\nweight = 0\n{KEY}'), 4, "account[1].weight", "> 0"),
        (account(f'backend = "vertex"\nreserve = 1.5\n{KEY}'), 4, "account[1].reserve", "<= 1"),
        (account(f'backend = "vertex"\nlimits = {{ rpm = 0 }}\n{KEY}'), 4, "account[1].limits.rpm", ">= 1"),
        (
            account(f'backend = "vertex"\nlimits = {{ rpx = 1 }}\n{KEY}'),
            4,
            "account[1].limits.rpx",
            "unknown key",
        ),
        (account(f'backend = "vertex"\nenabled = "no"\n{KEY}'), 4, "account[1].enabled", "expected `bool`"),
        (
            account(f'backend = "vertex"\nmodels = "gemini-3"\n{KEY}'),
            4,
            "account[1].models",
            "expected `array`",
        ),
        (account(f'backend = "vertex"\nmodels = [""]\n{KEY}'), 4, "account[1].models[1]", "length >= 1"),
        (account(f'backend = "vertex"\nproxy = "proxy:1"\n{KEY}'), 4, "account[1].proxy", "proxy is a URL"),
        (
            account(f'backend = "vertex"\nclient_origin = "stolen"\n{KEY}'),
            4,
            "account[1].client_origin",
            "invalid enum",
        ),
        ("[account]\nid = 'a'", 1, "account", "not a list of tables"),
        ("account = 1", 1, "account", "not a list of tables"),
        ("acount = 1", 1, "acount", "unknown key acount"),
        ("[[account]]\nid = ", 2, "", "not TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, line: int, key: str, words: str) -> None:
    """File, line, column and key of every error, in a sentence that says what would be right."""
    error = refused(text)
    assert (error.file, error.line, error.key) == ("accounts.toml", line, key)
    assert error.column >= 1
    assert words in error.problem


def test_an_id_given_twice_names_both_lines() -> None:
    """The error stands at the second one and names the first."""
    error = refused(
        account(f'backend = "vertex"\n{KEY}') + "\n" + account(f'backend = "developer-api"\n{KEY}')
    )
    assert error.line == 7
    assert "on line 2 and on line 7" in error.problem


def test_a_secret_written_into_the_file_is_not_repeated() -> None:
    """The error explains references and shows nothing of the text that stood there."""
    error = refused(
        account('backend = "developer-api"\ncredential = { type = "api-key", secret = "fake-key-1" }')
    )
    assert error.key == "account[1].credential.secret"
    assert "never the text itself" in error.hint
    assert "fake-key-1" not in repr(error) + str(error)


def test_every_bad_account_has_an_error() -> None:
    """One reading tells the first error of each account, in the file's order, with top-level ones and duplicates."""
    text = (
        "x = 1\n"
        + account("", id="a")
        + account(f'backend = "vertex"\n{KEY}', id="b")
        + account("y = 1", id="b")
    )
    assert [found.line for found in refused(text).all_errors] == [1, 2, 10, 11]


def test_entries_compare_by_value() -> None:
    """Two readings of one text are equal, so that a reload can see what changed, the secret's place included."""
    assert parse(FULL, "f") == parse(FULL, "g")
    assert parse(FULL, "f") != parse(FULL.replace("secrets/work.json", "secrets/other.json"), "f")
