"""`accounts.toml` as Structs: every key, its default, what makes sense together, and where an error stands.

The keys are a promise to users (README). What an account does with them is the core's and the credentials' business.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from gemini_poold import tomlfile
from gemini_poold.config import Glob, SecretRef, check_proxy
from gemini_poold.core import model
from gemini_poold.errors import ConfigInvalid

AccountId = Annotated[str, Meta(pattern=r"^[a-z0-9._-]{1,64}\Z")]
Whole = Annotated[int, Meta(ge=1)]
CredentialType = Literal["oauth", "api-key", "service-account", "adc", "external", "impersonated"]

NEEDS_SECRET = frozenset({"oauth", "api-key", "service-account", "external"})
# Code Assist counts and licenses people, so only what can stand for a person's login is taken there.
CREDENTIALS_OF: dict[model.Backend, frozenset[str]] = {
    model.Backend.CODE_ASSIST: frozenset({"oauth", "adc"}),
    model.Backend.DEVELOPER_API: frozenset(
        {"api-key", "oauth", "service-account", "adc", "external", "impersonated"}
    ),
    model.Backend.VERTEX: frozenset(
        {"api-key", "oauth", "service-account", "adc", "external", "impersonated"}
    ),
}
DEFAULT_COST = {
    model.Backend.DEVELOPER_API: model.Cost.FREE,
    model.Backend.CODE_ASSIST: model.Cost.LICENSED,
    model.Backend.VERTEX: model.Cost.PAID,
}


class Credential(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How requests are authorised. `secret` is missing only where google-auth finds the login by itself."""

    type: CredentialType
    secret: SecretRef | None = None
    target: str = ""
    scopes: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    self_signed: bool = False

    def __post_init__(self) -> None:
        if self.secret is None and self.type in NEEDS_SECRET:
            raise ValueError(
                f'type "{self.type}" needs a secret, e.g. secret = {{ file = "secrets/NAME.json" }}'
            )
        if self.type == "impersonated" and "@" not in self.target:
            raise ValueError('type "impersonated" needs target, the service account\'s e-mail address')
        if self.target and self.type != "impersonated":
            raise ValueError('target belongs to type "impersonated" only')
        if self.self_signed and self.type != "service-account":
            raise ValueError('self_signed belongs to type "service-account" only')


class Limits(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    rpm: Whole | None = None
    rpd: Whole | None = None
    tpm: Whole | None = None


class DailyCap(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    requests: Whole | None = None
    tokens: Whole | None = None


class AccountEntry(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One `[[account]]` as written. `cost`, `data` and `lend` are None where the user left them to the defaults."""

    id: AccountId
    backend: model.Backend
    credential: Credential
    project: str = ""
    quota_group: str = ""
    location: str = "global"
    enabled: bool = True
    priority: int = 0
    weight: Annotated[float, Meta(gt=0)] = 1.0
    models: tuple[Glob, ...] = ()
    exclude_models: tuple[Glob, ...] = ()
    limits: Limits = Limits()
    daily_cap: DailyCap = DailyCap()
    reserve: Annotated[float, Meta(ge=0, le=1)] = 0.0
    cost: model.Cost | None = None
    data: model.Data | None = None
    lend: bool | None = None
    client_origin: Literal["own", "foreign"] = "own"
    accepted_terms_risk: str = ""
    proxy: str = ""

    def __post_init__(self) -> None:
        check_proxy("proxy", self.proxy)
        kind = self.credential.type
        if kind not in CREDENTIALS_OF[self.backend]:
            fitting = ", ".join(sorted(CREDENTIALS_OF[self.backend]))
            raise ValueError(
                f'backend "{self.backend}" takes no credential of type "{kind}", only: {fitting}'
            )
        if self.backend is model.Backend.VERTEX:
            if not self.project and kind != "api-key":  # an express-mode key stands for its project itself
                raise ValueError('backend "vertex" needs a project')
            if not self.location:
                raise ValueError('location is a region, a multi-region or "global"')
        elif self.location != "global":
            raise ValueError(f'location belongs to backend "vertex", not to "{self.backend}"')
        if self.quota_group and self.backend is not model.Backend.DEVELOPER_API:
            raise ValueError(f'quota_group belongs to backend "developer-api", not to "{self.backend}"')


def parse(text: str, file: str) -> list[AccountEntry]:
    """The accounts in `text`, in the file's order; `file` is named in errors.

    Raises `ConfigInvalid` with the place of the first error; the first error of every other account is in `.others`.
    """
    source = tomlfile.Source(text, file)
    errors = [
        source.invalid(f"unknown key {key}", (key,), hint=HINT) for key in source.document if key != "account"
    ]
    tables = source.document.get("account", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        errors.append(source.invalid("account is not a list of tables", ("account",), hint=HINT))
        tables = []
    entries: list[AccountEntry] = []
    for index, table in enumerate(tables):
        try:
            entries.append(_entry(source, table, index))
        except ConfigInvalid as error:
            errors.append(error)
    tomlfile.raise_all([*errors, *_duplicates(source, tables)])
    return entries


HINT = "accounts are written as [[account]] tables"
SECRET_HINT = (
    'a secret is a reference, never the text itself: { file = "…" }, { env = "…" }, { command = […] } …'
)


def _entry(source: tomlfile.Source, table: dict[str, Any], index: int) -> AccountEntry:
    key = ("account", index)
    credential = table.get("credential")
    if isinstance(credential, dict) and isinstance(credential.get("secret"), str):
        # The most likely mistake of all, and the one where the value must not be repeated.
        where = (*key, "credential", "secret")
        raise source.invalid(f"{tomlfile.dotted(where)} is a text", where, hint=SECRET_HINT)
    return source.convert(table, AccountEntry, key)


def _duplicates(source: tomlfile.Source, tables: list[dict[str, Any]]) -> list[ConfigInvalid]:
    errors: list[ConfigInvalid] = []
    first: dict[str, int] = {}
    for index, table in enumerate(tables):
        name = table.get("id")
        if not isinstance(name, str):
            continue
        if name not in first:
            first[name] = index
            continue
        key = ("account", index, "id")
        line, before = source.place(key).line, source.place(("account", first[name], "id")).line
        problem = f'id "{name}" is given twice: on line {before} and on line {line}'
        errors.append(source.invalid(problem, key, hint="every account has its own id"))
    return errors


def to_model(entry: AccountEntry) -> model.Account:
    """The account as the core sees it: defaults filled in, nothing of the secret."""
    api_key = entry.credential.type == "api-key"
    default_data = model.Data.MAY_TRAIN if api_key else model.Data.NO_TRAINING
    return model.Account(
        id=entry.id,
        backend=entry.backend,
        credential=entry.credential.type,
        project=entry.project,
        quota_group=entry.quota_group,
        location=entry.location,
        enabled=entry.enabled,
        priority=entry.priority,
        weight=entry.weight,
        models=entry.models,
        exclude_models=entry.exclude_models,
        limits=model.Limits(entry.limits.rpm, entry.limits.rpd, entry.limits.tpm),
        daily_cap=model.DailyCap(entry.daily_cap.requests, entry.daily_cap.tokens),
        reserve=entry.reserve,
        cost=DEFAULT_COST[entry.backend] if entry.cost is None else entry.cost,
        data=default_data if entry.data is None else entry.data,
        lend=not api_key if entry.lend is None else entry.lend,
        client_origin=entry.client_origin,
        accepted_terms_risk=entry.accepted_terms_risk,
        proxy=entry.proxy,
    )
