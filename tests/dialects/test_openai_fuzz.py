"""Any JSON at all, where clients write bodies: it is carried over or refused, and nothing else happens."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_pool.errors import PoolError
from gemini_poold.dialects import openai_chat_request, openai_embeddings, openai_responses_request

NAMES = st.sampled_from(
    "type role content text name function call_id id arguments tool_calls tool_call_id schema anyOf properties required "
    "image_url url file file_data file_id input_audio data format effort summary google thinking_config mode "
    "extra_content thought_signature parameters allowed_tools output json_schema".split()
)
FIELDS = st.sampled_from(
    "messages input tools tool_choice response_format text stop seed n reasoning reasoning_effort extra_body include "
    "instructions stream stream_options logprobs dimensions encoding_format temperature modalities verbosity".split()
)
WORDS = st.sampled_from(
    "function user assistant tool system message function_call function_call_output text input_text image_url file "
    "json_schema auto required low data:;base64, data:x,%zz gs://a https://[ wav {} [1".split()
)
LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | st.text(max_size=3)
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=20
)


@given(st.dictionaries(FIELDS, JSON, max_size=5))
@settings(max_examples=80, deadline=None)
def test_anything_is_carried_or_refused(given_):
    """PoolError `bad_request`, or a body that can be written; never an error of ours."""
    chat = {"model": "m", "messages": [{"role": "user", "content": "a"}], **given_}
    other = {"model": "m", "input": "a", **given_}
    for make in (
        lambda: openai_chat_request.translate(chat).body,
        lambda: openai_responses_request.translate(other).chat.body,
        lambda: openai_embeddings.translate(other).batch("m"),
    ):
        try:
            msgspec.json.encode(make())
        except PoolError as error:
            assert error.code == "bad_request"
