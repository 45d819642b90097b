"""Reasoning effort -> thinkingConfig, per family of models."""

import pytest

from gemini_pool.errors import PoolError
from gemini_poold.dialects.reading import Reader
from gemini_poold.dialects.thinking import of_config, of_effort


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-flash-lite", "minimal", {"thinkingBudget": 1024}),
        ("gemini-2.5-pro", "low", {"thinkingBudget": 1024}),
        ("gemini-2.5-pro", "medium", {"thinkingBudget": 8192}),
        ("models/gemini-2.5-flash", "high", {"thinkingBudget": 24576}),
        ("gemini-3-flash-preview", "minimal", {"thinkingLevel": "minimal"}),
        ("gemini-3.1-pro-preview", "minimal", {"thinkingLevel": "low"}),
        ("gemini-3.1-pro-preview", "medium", {"thinkingLevel": "medium"}),
        ("gemini-3-pro-preview", "medium", {"thinkingLevel": "high"}),
        ("gemini-4-argon", "low", {"thinkingLevel": "low"}),
        ("gemini-flash-latest", "high", {"thinkingLevel": "high"}),
    ],
)
def test_effort(model, effort, config):
    """A budget before Gemini 3, a level since; models that know fewer get the next higher."""
    assert of_effort(effort, model, "reasoning_effort") == config


@pytest.mark.parametrize(
    ("model", "effort"),
    [
        ("gemini-2.5-pro", "none"),
        ("gemini-3-flash-preview", "none"),
        ("gemini-2.5-flash", "xhigh"),
        ("m", ""),
    ],
)
def test_what_a_model_cannot_do_is_refused(model, effort):
    """Thinking that cannot be switched off, efforts that Gemini has not."""
    with pytest.raises(PoolError, match="cannot be carried over"):
        of_effort(effort, model, "reasoning_effort")


def test_both_spellings():
    """Snake case as on Google's page, camel case as in its API; levels in lower case."""
    made = {"thinkingBudget": 1, "thinkingLevel": "high", "includeThoughts": True}
    assert (
        of_config(Reader({"thinking_budget": 1, "thinking_level": "HIGH", "include_thoughts": True})) == made
    )
    assert of_config(Reader(made)) == made
    with pytest.raises(PoolError, match="unknown parameter"):
        of_config(Reader({"budget": 1}))
