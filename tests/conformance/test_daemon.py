"""The real server says what stands in the transcripts."""

import pytest
from tests.conformance.daemon import play
from tests.conformance.script import Mismatch, Script, scripts


@pytest.mark.parametrize("script", scripts("server"), ids=lambda script: script.name)
async def test_the_server_replays(script, tmp_path):
    """Every answer and notification comes in the transcript's order, with everything that stands there."""
    await play(script, tmp_path)


async def test_a_transcript_that_says_otherwise_fails(tmp_path):
    """The player compares: a word changed in the transcript is found."""
    (script,) = [s for s in scripts("server") if s.name == "token"]
    script.wire[1]["server"]["result"]["token_type"] = "Bearer"
    with pytest.raises(Mismatch, match=r"result\.token_type"):
        await play(script, tmp_path)


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ({"a": 1}, {"a": 1, "more": 2}, True),
        ({"a": 1}, {"more": 2}, False),
        ([1], [1, 2], False),
        (True, 1, False),
        (["$x", "$x"], [7, 7], True),
        (["$x", "$x"], [7, 8], False),
        ("$/progress", "pool/event", False),
    ],
)
def test_matching(pattern, value, fits):
    """More fields are fine, fewer are not; a name stands for one thing throughout."""
    script = Script("", "", [], [], {}, [], {})
    assert script.fits(pattern, value) is fits
