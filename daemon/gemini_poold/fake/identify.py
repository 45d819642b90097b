"""Who asks: from the headers to a caller of the world, or to the refusal that Google gives.

`call.caller` is set as soon as it is known, so that faults can be aimed at callers whose credential is refused.
"""

from __future__ import annotations

from . import refusals
from .call import Call
from .envelope import Refused
from .signing import JwtRefused, peek, verify
from .throttle import GL_SERVICE, VX_SERVICE
from .world import ApiKey, Caller, World


def api_key(call: Call) -> str:
    """The key of header or query; an empty header counts as none, two keys are one too many."""
    header, query = call.headers.get("x-goog-api-key", ""), call.query.get("key", "")
    if header and query:
        raise Refused(refusals.multiple_credentials())
    return header or query


def bearer(call: Call) -> str:
    scheme, _, token = call.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def developer(world: World, call: Call) -> Caller:
    """A key, or a login with `x-goog-user-project`; the caller's `project` is the one that pays."""
    key, token = api_key(call), bearer(call)
    if key and token:
        raise Refused(refusals.multiple_credentials())
    if token in world.keys:  # some clients send their key as a bearer
        key, token = token, ""
    if key:
        return by_key(world, call, key)
    if not token:
        raise Refused(refusals.unregistered_caller())
    caller = by_token(world, call, token, GL_SERVICE)
    check_user_project(call, caller, GL_SERVICE)
    return caller


def cloud(world: World, call: Call, service: str = VX_SERVICE) -> Caller:
    """An access token, or a JWT that a service account signed itself; never a key."""
    key, token = api_key(call), bearer(call)
    if key and token:
        raise Refused(refusals.multiple_credentials())
    if key:
        raise Refused(refusals.api_keys_unsupported(service))
    if not token:
        raise Refused(refusals.unauthenticated("CREDENTIALS_MISSING", service=service))
    return by_token(world, call, token, service)


def express(world: World, call: Call) -> Caller:
    """Vertex without a project: a key that may be used so, or a token whose owner has one project."""
    key, token = api_key(call), bearer(call)
    if key and token:
        raise Refused(refusals.multiple_credentials())
    if not key:
        return cloud(world, call)
    caller = by_key(world, call, key, service=VX_SERVICE)
    if not caller.express:
        raise Refused(refusals.api_keys_unsupported(VX_SERVICE))
    return caller


def by_key(world: World, call: Call, key: str, service: str = GL_SERVICE) -> ApiKey:
    found = world.keys.get(key)
    if found is None:
        raise Refused(refusals.api_key_invalid(service=service))
    call.caller = found
    if found.state != "ok":
        raise Refused(_key_refusal(found.state, service))
    project = world.projects[found.project]
    if service in project.disabled:
        raise Refused(refusals.service_disabled(service, project.number))
    return found


def by_token(world: World, call: Call, token: str, service: str = "") -> Caller:
    found = world.tokens.get(token)
    if found is None:
        if token.count(".") == 2:
            return _by_jwt(world, call, token, service)
        raise Refused(refusals.unauthenticated(service=service))
    call.caller = found.caller
    if found.revoked or world.clock.now() >= found.expires_at:
        raise Refused(refusals.unauthenticated(service=service))
    return found.caller


def check_user_project(call: Call, caller: Caller, service: str) -> str:
    """The project named by `x-goog-user-project`, "" for none; refused when it is not the caller's to use."""
    project = call.headers.get("x-goog-user-project", "")
    if project and project not in caller.projects:
        raise Refused(refusals.user_project_denied(project, service))
    return project


def _by_jwt(world: World, call: Call, token: str, service: str) -> Caller:
    """A self-signed JWT; its audience (or scope) is not looked at more closely than Google's docs allow to say."""
    try:
        account = world.service_accounts.get(str(peek(token).get("iss", "")))
        if account is None or account.key is None or account.state != "ok":
            raise Refused(refusals.unauthenticated(service=service))
        call.caller = account
        verify(token, account.key.public, world.clock.now())
    except JwtRefused as bad:
        raise Refused(refusals.unauthenticated(service=service)) from bad
    return account


def _key_refusal(state: str, service: str) -> dict[str, object]:
    if state in {"invalid", "expired"}:
        return refusals.api_key_invalid(expired=state == "expired", service=service)
    if state == "leaked":
        return refusals.key_leaked()
    if state == "project-denied":
        return refusals.project_denied()
    return refusals.api_key_blocked(state, service=service)
