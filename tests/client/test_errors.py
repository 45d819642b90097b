"""The error words and what hangs on each."""

import pytest

from gemini_pool.errors import ERRORS, Cancelled, ConnectionLost, NotRunning, PoolError, ProtocolError

CONTRACT = (
    "all_cooling_down no_account_for_model needs_paid unknown_model deadline account_dead login_required unlicensed "
    "unsupported_client blocked_by_terms not_lent upstream_error stream_cut bad_request overloaded config_invalid "
    "not_found shutting_down"
).split()


def test_the_words_are_the_contracts():
    """No word may vanish or be renamed."""
    assert set(CONTRACT) <= set(ERRORS)


@pytest.mark.parametrize("word", sorted(ERRORS))
def test_each_word_has_its_place_on_every_surface(word):
    """An HTTP error status, an exit code of the contract, and a retry only where it may help."""
    entry = ERRORS[word]
    assert 400 <= entry.http <= 504
    assert entry.exit in (1, 2, 4, 5, 78)
    assert entry.status.isupper()
    assert PoolError(word, "m").exit_code == entry.exit
    assert PoolError(word, "m").retryable is entry.retryable


def test_attributes():
    """The sentence for people has the hint; programs have fields."""
    error = PoolError(
        "deadline", "too late", hint="try later", retryable=False, retry_at=3.0, account="a", details=[1]
    )
    assert str(error) == "too late (try later)"
    assert (error.retryable, error.retry_at, error.account, error.details) == (False, 3.0, "a", [1])
    assert str(PoolError("deadline", "too late")) == "too late"
    assert PoolError("no such word", "m").exit_code == 1


def test_the_clients_own():
    """Errors that no daemon sends."""
    assert NotRunning("m", hint="h").exit_code == 3
    assert ConnectionLost(unsent=True).unsent
    assert not ConnectionLost().unsent
    assert ConnectionLost().retryable
    assert ProtocolError("m").rpc_code == -32600
    assert Cancelled().rpc_code == -32800
