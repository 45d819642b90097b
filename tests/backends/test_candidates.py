"""How many candidates a body asks for, and when a stream of several is whole."""

import json

import pytest

from gemini_poold.backends.candidates import Candidates, asked


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({}, 1),
        ({"generationConfig": {"candidateCount": 3}}, 3),
        ({"generation_config": {"candidate_count": 2}}, 2),
        ({"request": {"generationConfig": {"candidateCount": 4}}}, 4),
        ({"generationConfig": {"candidateCount": 1}}, 1),
        ({"generationConfig": {"candidateCount": "many"}}, 1),
        ({"contents": [{"parts": [{"functionCall": {"args": {"candidateCount": 5}}}]}]}, 1),
        ({"contents": [{"parts": [{"text": '"generationConfig":{"candidateCount":5}'}]}]}, 1),
        ({"generationConfig": [], "request": 7, "x": {"candidateCount": 2}}, 1),
    ],
)
def test_asked(body, count):
    """In every surface's spelling; what merely looks like it is none."""
    assert asked(json.dumps(body).encode()) == count


def test_asked_of_what_is_no_json():
    """Google's to refuse."""
    assert asked(b'{"candidateCount": 2') == 1


def test_whole():
    """All that were seen, and if the end was no proper one all that were wanted."""
    several = Candidates(2)
    several.take(b'{"candidates":[{"index":0},{"index":1}]}')
    assert not several.whole(ended=True)
    several.take(b'{"response":{"candidates":[{"finishReason":"STOP"}]}}')
    several.take(b'{"candidates":[{"index":1,"finishReason":"FINISH_REASON_UNSPECIFIED"}]}')
    several.take(b"[]")
    assert not several.whole(ended=True)
    several.take(b'{"candidates":[{"index":1,"finishReason":"MAX_TOKENS"}]}')
    assert several.whole(ended=False)
    fewer = Candidates(3)
    fewer.take(b'{"candidates":[{"index":0,"finishReason":"STOP"}]}')
    assert fewer.whole(ended=True)
    assert not fewer.whole(ended=False)
