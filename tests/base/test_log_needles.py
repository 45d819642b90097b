"""The quick look before the search for secrets lets none through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_poold import log

ASCII = st.characters(max_codepoint=127)


@given(st.from_regex(log._SECRETS, alphabet=ASCII))
def test_whatever_the_search_finds_is_looked_for(text):
    """Every text with a match holds a needle."""
    assert log.masked(text) == log._SECRETS.sub(lambda match: (match["keep"] or "") + "***", text)
    assert "***" in log.masked(text)


@pytest.mark.parametrize("text", ["", "a plain line", "gl generateContent: 200 STOP, 12 tokens in, 34 out"])
def test_a_plain_line_stays(text):
    """Nothing is masked where nothing is secret."""
    assert log.masked(text) is text
