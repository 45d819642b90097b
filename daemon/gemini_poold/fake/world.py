"""Who and what exists: OAuth clients, people with their logins, keys, service accounts, projects, models.

Data and the ways to make it; what a request may do with it is judged by `identify` and the surfaces. Made-up secrets
are called `fake-...` so that a leak of one is found by its looks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import count
from typing import Any

from .clock import Clock, RealClock
from .envelope import Json
from .limits import Limits, Meter
from .signing import KeyPair

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
LOGIN_SCOPES = f"{CLOUD_PLATFORM} https://www.googleapis.com/auth/userinfo.email https://www.googleapis.com/auth/userinfo.profile openid"


@dataclass(slots=True)
class Project:
    """`hints`: what its 429s tell: "google" (as observed: the day's quota still says 44 s), "honest", or "none"."""

    id: str
    number: str
    tier: str = "FreeTier"  # the suffix of quota ids; "" or "PaidTier1" bills
    hints: str = "google"
    disabled: frozenset[str] = frozenset()  # services that are off, by host name
    licensed: bool = True  # for Code Assist


@dataclass(slots=True)
class Caller:
    """An identity that a credential proves. `aliases` are further names that a fault may match it by."""

    name: str
    kind: str  # key, user, service-account, federated
    subject: str  # stable id: what Code Assist counts against
    project: str = ""  # its own, "" for people
    projects: frozenset[str] = frozenset()  # all that it may use
    aliases: tuple[str, ...] = ()


@dataclass(slots=True)
class CodeAssist:
    """What Code Assist knows about a person. `tier` "" means not onboarded; `default_tier` is what onboarding gives.

    `onboarding` is how many polls the operation takes; `operation_error` makes it fail with that message.
    `ineligible` are entries of `ineligibleTiers`; `refusal` is an error body for every call but loadCodeAssist;
    `load_refusal` for loadCodeAssist itself; `buckets` replaces the answer of retrieveUserQuota.
    """

    tier: str = "standard-tier"
    project: str = ""
    paid_tier: str = ""
    default_tier: str = "standard-tier"
    onboarding: int = 3
    operation_error: str = ""
    ineligible: list[Json] = field(default_factory=list)
    project_as_object: bool = False
    refusal: Json | None = None
    load_refusal: Json | None = None
    buckets: list[Json] | None = None


@dataclass(slots=True)
class User(Caller):
    email: str = ""
    hosted_domain: str = ""
    code_assist: CodeAssist = field(default_factory=CodeAssist)
    token_life_s: float | None = None  # None: the world's


@dataclass(slots=True)
class ApiKey(Caller):
    """`state`: ok, invalid, expired, leaked, project-denied, or one of the API_KEY_..._BLOCKED reasons."""

    key: str = ""
    state: str = "ok"
    express: bool = True  # may be used for Vertex in express mode


@dataclass(slots=True)
class ServiceAccount(Caller):
    email: str = ""
    key: KeyPair | None = None
    key_id: str = ""
    state: str = "ok"  # ok, disabled, deleted
    token_life_s: float | None = None
    impersonators: frozenset[str] = frozenset()  # names of callers that may act as it


@dataclass(slots=True)
class Pool(Caller):
    """A workload identity pool: which subject tokens it takes ("*" takes any)."""

    audience: str = ""
    subject_tokens: frozenset[str] = frozenset({"*"})


@dataclass(slots=True)
class OAuthClient:
    id: str
    secret: str
    kind: str = "installed"
    redirect_uris: tuple[str, ...] = ("http://localhost",)


@dataclass(slots=True)
class Grant:
    """One refresh token. `trouble`: "" or revoked, bad_request, deleted, rapt, rapt_required, policy."""

    token: str
    user: User
    client: str
    scope: str = LOGIN_SCOPES
    rotates: bool = False  # every renewal brings a new refresh token and ends this one
    overlaps: bool = False  # ... but only once the new one is used: a lost answer costs nobody the login
    replaces: str = ""  # the token that ends when this one is used
    trouble: str = ""


@dataclass(slots=True)
class AccessToken:
    token: str
    caller: Caller
    scope: str
    issued_at: float
    expires_at: float
    client: str = ""
    grant: str = ""
    revoked: bool = False


@dataclass(slots=True)
class Model:
    """`locations`: where Vertex has it (empty: everywhere). `chunks`, `chunk_chars`, `pace_s`: how it answers."""

    name: str
    methods: tuple[str, ...] = ("generateContent", "countTokens", "streamGenerateContent")
    thinking: bool = True
    locations: frozenset[str] = frozenset()
    backends: frozenset[str] = frozenset({"gl", "ca", "vx"})
    chunks: int = 4
    chunk_chars: int = 0  # 0: the words of the answer decide
    pace_s: float = 0.0
    think_s: float = 0.0  # before the first byte


GENERATIVE = (
    "gemini-2.5-pro",
    "gemini-2.5-flash",
    "gemini-2.5-flash-lite",
    "gemini-3-pro-preview",
    "gemini-3-flash-preview",
    "gemini-3.1-pro-preview",
    "gemini-3.1-flash-lite",
    "gemini-3.5-flash",
    "gemini-3.5-flash-lite",
    "gemini-3.6-flash",
    "gemini-3.7-flash",
    "gemini-3.8-flash",
    "gemini-4-argon",
)
EMBEDDING = ("gemini-embedding-001", "text-embedding-004")


class World:
    """Everything there is. Lookups are dictionaries; whatever makes an entry also returns it."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or RealClock()
        self.meter = Meter(self.clock)
        self.projects: dict[str, Project] = {}
        self.clients: dict[str, OAuthClient] = {}
        self.users: dict[str, User] = {}
        self.keys: dict[str, ApiKey] = {}  # by key text
        self.service_accounts: dict[str, ServiceAccount] = {}  # by e-mail
        self.pools: dict[str, Pool] = {}  # by audience
        self.grants: dict[str, Grant] = {}  # by refresh token
        self.tokens: dict[str, AccessToken] = {}  # by access token
        self.models: dict[str, Model] = {name: Model(name) for name in GENERATIVE}
        self.models |= {
            name: Model(name, methods=("embedContent", "countTokens"), thinking=False) for name in EMBEDDING
        }
        self.token_life_s = 3599.0
        self.login_as: User | None = (
            None  # who answers the browser's consent page; None: login_hint, else the first
        )
        self.login_error = ""  # what the consent page answers instead, e.g. access_denied
        self.token_uri = "https://oauth2.googleapis.com/token"  # the server puts its own address here
        self._serial = count(1)

    def add_project(self, project: str, **settings: Any) -> Project:
        """The project of that id, made when it is new."""
        if project not in self.projects:
            self.projects[project] = Project(project, number=str(100_000_000_000 + len(self.projects) + 1))
        for name, value in settings.items():
            setattr(self.projects[project], name, value)
        return self.projects[project]

    def add_client(self, name: str = "own", **settings: Any) -> OAuthClient:
        client = OAuthClient(f"fake-client-{name}.example", f"fake-secret-{name}", **settings)
        self.clients[client.id] = client
        return client

    def add_user(
        self,
        name: str,
        *,
        projects: Iterable[str] = (),
        code_assist: CodeAssist | None = None,
        **settings: Any,
    ) -> User:
        """A person `name@example.com`. Projects that do not exist yet are made; the first is Code Assist's."""
        allowed = tuple(projects)
        for project in allowed:
            self.add_project(project)
        assist = code_assist or CodeAssist(project=allowed[0] if allowed else self._managed(name))
        if assist.project:
            self.add_project(assist.project)
        subject = str(105_000_000_000_000_000_000 + len(self.users) + 1)
        email = settings.pop("email", f"{name}@example.com")
        everywhere = frozenset(allowed) | ({assist.project} if assist.project else set())
        user = User(
            name,
            "user",
            subject,
            projects=everywhere,
            aliases=(email, subject),
            email=email,
            code_assist=assist,
            **settings,
        )
        self.users[name] = user
        return user

    def login(self, user: User, client: OAuthClient, **settings: Any) -> Grant:
        """A new refresh token, as if the person had just consented."""
        grant = Grant(f"fake-refresh-{user.name}-{next(self._serial)}", user, client.id, **settings)
        self.grants[grant.token] = grant
        return grant

    def authorized_user(self, user: User, client: OAuthClient, **settings: Any) -> Json:
        """A new login as the `authorized_user` file that holds it."""
        grant = self.login(user, client, **settings)
        return {
            "type": "authorized_user",
            "client_id": client.id,
            "client_secret": client.secret,
            "refresh_token": grant.token,
            "token_uri": self.token_uri,
        }

    def client_file(self, client: OAuthClient) -> Json:
        """What the Cloud console lets one download for `client`."""
        return {
            client.kind: {
                "client_id": client.id,
                "client_secret": client.secret,
                "auth_uri": "https://accounts.google.com/o/oauth2/auth",
                "token_uri": self.token_uri,
                "redirect_uris": list(client.redirect_uris),
            }
        }

    def add_api_key(self, name: str, *, project: str = "", key: str = "", **settings: Any) -> ApiKey:
        """Two keys of one project share its limits; without a project the key gets one of its own."""
        project = project or f"project-of-{name}"
        self.add_project(project)
        key = key or f"fake-key-{name}"
        made = ApiKey(name, "key", f"key:{name}", project, frozenset({project}), (key,), key=key, **settings)
        self.keys[key] = made
        return made

    def add_service_account(self, name: str, *, project: str, **settings: Any) -> Json:
        """A service account with a fresh key; returns Google's credential file for it."""
        self.add_project(project)
        email = f"{name}@{project}.iam.example.com"
        pair = KeyPair()
        serial = next(self._serial)
        account = ServiceAccount(
            name,
            "service-account",
            str(110_000_000_000_000_000_000 + serial),
            project,
            frozenset({project}),
            (email,),
            email=email,
            key=pair,
            key_id=f"fake-key-id-{serial}",
            **settings,
        )
        self.service_accounts[email] = account
        return {
            "type": "service_account",
            "project_id": project,
            "private_key_id": account.key_id,
            "private_key": pair.pem,
            "client_email": email,
            "client_id": account.subject,
            "token_uri": self.token_uri,
            "universe_domain": "googleapis.com",
        }

    def add_pool(
        self, name: str, *, projects: Iterable[str] = (), subject_tokens: Iterable[str] = ("*",)
    ) -> Pool:
        """A workload identity pool whose tokens may use `projects`."""
        allowed = tuple(projects)
        for project in allowed:
            self.add_project(project)
        audience = (
            f"//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/{name}/providers/{name}"
        )
        pool = Pool(
            name,
            "federated",
            f"principal://{name}",
            projects=frozenset(allowed),
            audience=audience,
            subject_tokens=frozenset(subject_tokens),
        )
        self.pools[audience] = pool
        return pool

    def limit(self, bucket: str, model: str = "*", **limits: Any) -> None:
        """Limit a bucket: a project id for keys, a person's name for Code Assist, `project/location` for Vertex."""
        self.meter.set(bucket, model, Limits(**limits))

    def issue(
        self,
        caller: Caller,
        *,
        scope: str = CLOUD_PLATFORM,
        life_s: float | None = None,
        grant: Grant | None = None,
    ) -> AccessToken:
        """A new access token, living `life_s`, else the caller's own setting, else the world's."""
        if life_s is None:
            life_s = getattr(caller, "token_life_s", None)
        life_s = self.token_life_s if life_s is None else life_s
        now = self.clock.now()
        text = f"fake-access-{caller.name}-{next(self._serial)}"
        token = AccessToken(text, caller, scope, now, now + life_s)
        if grant:
            token.grant, token.client = grant.token, grant.client
        self.tokens[text] = token
        return token

    def expire_tokens(self, name: str = "*") -> int:
        """End all live access tokens of the callers that match, as if their time had run out; how many."""
        now, ended = self.clock.now(), 0
        for token in self.tokens.values():
            if token.expires_at > now and fnmatchcase(token.caller.name, name):
                token.expires_at, ended = now, ended + 1
        return ended

    def revoke(self, name: str, *, trouble: str = "revoked", tokens: bool = True) -> None:
        """End a person's logins with `trouble` (see Grant) and, unless told otherwise, the live tokens with them."""
        for grant in self.grants.values():
            if grant.user.name == name:
                grant.trouble = trouble
        if tokens:
            self.expire_tokens(name)

    def key(self, name: str) -> ApiKey:
        """The API key of that name."""
        return next(key for key in self.keys.values() if key.name == name)

    def service_account(self, name: str) -> ServiceAccount:
        return next(account for account in self.service_accounts.values() if account.name == name)

    def model(self, name: str) -> Model | None:
        return self.models.get(name)

    def _managed(self, name: str) -> str:
        return f"managed-{name}"
