"""A model that nobody has: of a preview model, its users are told where it is enabled."""

import pytest

from gemini_poold.core.model import Refusal
from gemini_poold.runtime.broker import PREVIEW_HINT, refused


@pytest.mark.parametrize(("model", "told"), [("gemini-3-pro-preview", True), ("gemini-2.5-pro", False)])
def test_where_previews_are_enabled(model, told):
    """The link stands in the hint of an unknown Gemini 3 model, and nowhere else."""
    error = refused(Refusal("unknown_model", f"no account has access to {model}", "gemini-pool quota"))
    assert (error.hint == PREVIEW_HINT) is told
    assert ("goo.gle/enable-preview-features" in str(error)) is told
    assert refused(Refusal("needs_paid", f"only paid accounts can serve {model}")).hint == ""
