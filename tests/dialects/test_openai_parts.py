"""Parts of OpenAI's messages: what they become, and what is refused."""

import base64

import pytest

from gemini_pool.errors import PoolError
from gemini_poold.dialects.openai_parts import parts, texts

DATA = base64.b64encode(b"data").decode()
FILE = "https://generativelanguage.googleapis.com/v1beta/files/abc"


@pytest.mark.parametrize(
    ("part", "made"),
    [
        ({"type": "text", "text": "a"}, {"text": "a"}),
        ({"type": "input_text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"text": "a"}),
        ({"type": "output_text", "text": "a", "annotations": [], "logprobs": []}, {"text": "a"}),
        ({"type": "refusal", "refusal": "no"}, {"text": "no"}),
        (
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}", "detail": "high"}},
            {"inlineData": {"mimeType": "image/png", "data": DATA}},
        ),
        (
            {
                "type": "input_image",
                "image_url": f"data:image/webp;charset=x;base64,{DATA}",
                "detail": "auto",
            },
            {"inlineData": {"mimeType": "image/webp", "data": DATA}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "data:image/svg+xml,%3Csvg/%3E"}},
            {"inlineData": {"mimeType": "image/svg+xml", "data": base64.b64encode(b"<svg/>").decode()}},
        ),
        ({"type": "input_image", "file_id": FILE}, {"fileData": {"fileUri": FILE}}),
        (
            {"type": "image_url", "image_url": {"url": "gs://bucket/cat.png"}},
            {"fileData": {"mimeType": "image/png", "fileUri": "gs://bucket/cat.png"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": DATA, "format": "mp3"}},
            {"inlineData": {"mimeType": "audio/mp3", "data": DATA}},
        ),
        (
            {
                "type": "file",
                "file": {"file_data": f"data:application/pdf;base64,{DATA}", "filename": "x.pdf"},
            },
            {"inlineData": {"mimeType": "application/pdf", "data": DATA}},
        ),
        (
            {"type": "file", "file": {"file_data": DATA, "filename": "x.csv"}},
            {"inlineData": {"mimeType": "text/csv", "data": DATA}},
        ),
        ({"type": "file", "file": {"file_id": FILE}}, {"fileData": {"fileUri": FILE}}),
        (
            {"type": "input_file", "filename": "x.pdf", "file_data": f"data:;base64,{DATA}"},
            {"inlineData": {"mimeType": "application/pdf", "data": DATA}},
        ),
        ({"type": "input_file", "file_url": FILE}, {"fileData": {"fileUri": FILE}}),
    ],
)
def test_parts(part, made):
    """Each kind, in Chat's and in the Responses API's spelling."""
    assert parts([part], "content") == [made]


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}, "nothing is fetched"),
        (
            {
                "type": "image_url",
                "image_url": {"url": "https://example.com/files/generativelanguage.googleapis.com"},
            },
            "nothing is fetched",
        ),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "neither a data: URL"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,***"}}, "not base64"),
        ({"type": "image_url", "image_url": {"url": "data:image/png"}}, "no data: URL"),
        ({"type": "image_url"}, "file_id"),
        ({"type": "input_image", "file_id": "file-abc"}, "neither"),
        ({"type": "input_audio", "input_audio": {"data": DATA, "format": "midi"}}, "must be one of"),
        ({"type": "input_audio"}, "must be an object"),
        ({"type": "file", "file": {"filename": "x"}}, "must be a string"),
        ({"type": "video_url", "video_url": {"url": "x"}}, "video_url"),
        ({"type": "text", "text": "a", "colour": "red"}, "colour"),
        ({"text": "a"}, "type"),
        ("a", "must be an object"),
    ],
)
def test_what_is_refused(part, why):
    """With the reason and the place."""
    with pytest.raises(PoolError, match=why) as caught:
        parts([part], "content")
    assert caught.value.code == "bad_request"
    assert "content[0]" in caught.value.message or "type" in caught.value.message


def test_only_text_where_gemini_takes_nothing_else():
    """System and model messages."""
    assert texts("a", "content") == [{"text": "a"}]
    with pytest.raises(PoolError, match="only text"):
        texts([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}}], "content")
    with pytest.raises(PoolError, match="a string or an array"):
        texts(5, "content")
