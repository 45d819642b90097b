"""Local keys and named clients."""

import pytest

from gemini_pool.errors import PoolError
from gemini_poold.gateway.auth import LocalClient, LocalKeys, new_key, presented_key

CI = LocalClient("ci", rpm=2, models=("gemini-3*",))
KEYS = LocalKeys([(LocalClient("default"), "fake-key-one"), (CI, "fake-key-two"), (LocalClient("none"), "")])


def test_keys_name_their_client():
    """Each key belongs to a client."""
    assert KEYS.client_of("fake-key-one").name == "default"
    assert KEYS.client_of("fake-key-two") is CI


@pytest.mark.parametrize("presented", [None, "", "fake-key-on", "fake-key-one ", "fake-key-öne", "\udcff"])
def test_a_wrong_key_is_refused(presented):
    """Anything else is unauthenticated; an empty configured key opens nothing."""
    with pytest.raises(PoolError) as caught:
        KEYS.client_of(presented)
    assert caught.value.code == "unauthenticated"


@pytest.mark.parametrize(
    ("headers", "query", "key"),
    [
        ({"x-goog-api-key": "a"}, "", "a"),
        ({"x-goog-api-key": "a", "Authorization": "Bearer b"}, "key=c", "a"),
        ({"x-goog-api-key": "", "Authorization": "Bearer b"}, "", "b"),
        ({"x-goog-api-key": "  ", "Authorization": "bearer  b "}, "", "b"),
        ({"Authorization": "Basic b"}, "alt=sse&key=c%2Bd", "c+d"),
        ({"Authorization": "Bearer"}, "", None),
        ({}, "monkey=c", None),
        ({}, "key=", None),
        ({}, "", None),
    ],
)
def test_where_a_key_may_stand(headers, query, key):
    """x-goog-api-key, else a Bearer, else ?key=; an empty one counts as none."""
    assert presented_key(headers, query) == key


def test_a_client_keeps_to_its_rate():
    """rpm requests at once, then one each 60/rpm seconds; the refusal says when."""
    client = LocalClient("ci", rpm=2)
    client.admit(100.0)
    client.admit(100.0)
    with pytest.raises(PoolError) as caught:
        client.admit(110.0)
    assert caught.value.code == "client_over_budget"
    assert caught.value.retry_at == pytest.approx(130.0)
    client.admit(130.0)
    with pytest.raises(PoolError):
        client.admit(50.0)  # a clock that stepped back refills nothing


def test_no_rate_means_no_limit():
    """rpm 0 counts nothing."""
    client = LocalClient("any")
    for _ in range(1000):
        client.admit(0.0)


def test_a_client_keeps_to_its_models():
    """Globs; none means all."""
    CI.check_model("gemini-3-flash")
    LocalClient("any").check_model("whatever")
    with pytest.raises(PoolError) as caught:
        CI.check_model("gemini-2.5-pro")
    assert caught.value.code == "forbidden"


def test_new_keys_differ():
    """Made keys are long, random and say whose they are."""
    made = {new_key() for _ in range(10)}
    assert len(made) == 10
    assert all(key.startswith("gp-") and len(key) > 30 for key in made)


def test_keys_are_not_kept():
    """Nothing of a key can be read from the object that checks it."""
    assert "fake-key" not in repr(vars(KEYS))
