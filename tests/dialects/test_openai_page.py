"""The page of what becomes of each field names every one that is left out or refused."""

from pathlib import Path

import pytest

from gemini_poold.dialects import openai_chat_request, openai_parts, openai_responses_request

PAGE = (Path(__file__).parents[2] / "daemon" / "OPENAI.md").read_text(encoding="utf-8")
NAMES = [
    *openai_chat_request.IGNORED,
    *openai_chat_request.CANNOT,
    *openai_chat_request.HISTORY,
    *openai_responses_request.IGNORED,
    *openai_responses_request.CANNOT,
    *openai_parts.IGNORED,
]


@pytest.mark.parametrize("name", sorted(set(NAMES)))
def test_every_field_is_on_the_page(name):
    """What is knowingly left out is said."""
    assert f"`{name}" in PAGE
