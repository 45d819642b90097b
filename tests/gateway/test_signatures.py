"""What is remembered of tool calls: bounded, the oldest forgotten first."""

from gemini_poold.gateway import signatures
from gemini_poold.gateway.signatures import Signatures


def test_kept_and_forgotten():
    """The newest stay, in number and in size; what is too large is never kept."""
    known = Signatures()
    for number in range(signatures.MOST + 1):
        known.keep(str(number), "sig")
    assert known.of("0") == ""
    assert known.of("1") == known.of(str(signatures.MOST)) == "sig"
    known.keep("large", "x" * (signatures.LARGEST + 1))
    assert known.of("large") == ""
    for number in range(signatures.IN_ALL // signatures.LARGEST + 1):
        known.keep(f"big{number}", "x" * signatures.LARGEST)
    assert known.of("1") == known.of("big0") == ""
    assert known.of("big1")
