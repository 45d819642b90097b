"""What the daemon's own errors say to people and to programs."""

from __future__ import annotations

from gemini_poold.errors import ConfigInvalid, FileRefused, PoolError, StateUnusable, UpstreamFailure


def test_a_configuration_error_names_its_place() -> None:
    """The message starts as editors and compilers write places; the exit code is that of an invalid configuration."""
    error = ConfigInvalid("unknown key x", file="/c/config.toml", line=3, column=7, hint="did you mean y?")
    assert str(error) == "/c/config.toml:3:7: unknown key x (did you mean y?)"
    assert error.problem == "unknown key x"
    assert error.exit_code == 78
    assert error.code == "config_invalid"
    assert ConfigInvalid("no place").message == "no place"
    assert ConfigInvalid("a file", file="f").message == "f: a file"


def test_further_errors_of_a_file_hang_on_the_first() -> None:
    """`all_errors` has the first one in front."""
    second = ConfigInvalid("b")
    first = ConfigInvalid("a", others=[second])
    assert first.all_errors == (first, second)


def test_kinds_of_errors_carry_what_their_readers_branch_on() -> None:
    """Every error is a PoolError; a network failure may be repeated, a newer database may not."""
    failure = UpstreamFailure("host: cut", kind="closed", sent=True)
    assert (failure.code, failure.kind, failure.sent, failure.retryable) == (
        "upstream_error",
        "closed",
        True,
        True,
    )
    assert not StateUnusable("newer").retryable
    assert [StateUnusable("x", retryable=again).exit_code for again in (False, True)] == [78, 1]
    refused = FileRefused("gone", path="/a", missing=True)
    assert (refused.path, refused.missing, refused.exit_code) == ("/a", True, 78)
    assert all(
        isinstance(error, PoolError) for error in (failure, refused, StateUnusable("x"), ConfigInvalid("x"))
    )
