"""Unique texts, token sequences with their cuts, and batches."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import VOCABULARY, write_decoder, write_encoder

from curate.errors import CurateError
from curate.options import FeatureOptions
from rm_ensemble.backbone import find_backbone, load_tokenizer
from rm_ensemble.batches import (
    Segments,
    batches,
    ends_with_eos,
    full_sequences,
    is_cut,
    kept_tokens,
    padded,
    response_sequences,
    text_segments,
    token_lengths,
    unique_texts,
)

COUNTS = st.integers(0, 400)
CHATML = (
    "{% for m in messages %}<s>{{ m['role'] + ' : ' + m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant :{% endif %}"
)


def turn(role, content):
    return [{"role": role, "content": content}]


def texts_of(*rows):
    return pl.DataFrame([{"prompt": turn("user", p), "response": turn("assistant", r)} for p, r in rows])


@pytest.fixture(scope="module")
def minilm():
    return load_tokenizer(find_backbone("minilm"))


@pytest.fixture(scope="module")
def tiny_decoder(tmp_path_factory):
    return load_tokenizer(find_backbone(write_decoder(tmp_path_factory.mktemp("decoder"))))


def row(sequences, text, tokenizer):
    number = sequences.index[text]
    return tokenizer.convert_ids_to_tokens(
        sequences.ids[sequences.starts[number] : sequences.starts[number + 1]].tolist()
    )


def span(sequences, text, tokenizer, part):
    start, stop = getattr(sequences, part)[sequences.index[text]]
    return row(sequences, text, tokenizer)[start:stop]


def test_unique_texts_in_order_of_first_appearance(make_pairs):
    pairs = make_pairs(("q", "a", "b"), ("q", "b", "c"), ("other q", "a", "a"))
    texts, index = unique_texts(pairs)
    contents = [(p[0]["content"], r[0]["content"]) for p, r in texts.iter_rows()]
    assert contents == [("q", "a"), ("q", "b"), ("q", "c"), ("other q", "a")]
    assert index.tolist() == [[0, 1], [1, 2], [3, 3]]


def test_unique_texts_tells_turns_apart(make_pairs):
    one_turn, two_turns = turn("user", "a\n\nb"), turn("user", "a") + turn("user", "b")
    texts, _ = unique_texts(make_pairs((one_turn, "x", "y"), (two_turns, "x", "y")))
    assert texts.height == 4


def test_no_pairs_are_no_texts(make_pairs):
    texts, index = unique_texts(make_pairs(("q", "a", "b")).clear())
    assert (texts.height, index.shape) == (0, (0, 2))


def test_an_encoder_reads_cls_prompt_sep_response_sep(minilm):
    conversation = pl.DataFrame(
        {"prompt": [turn("system", "Be kind") + turn("user", "Hi") + turn("assistant", "Yes?")],
         "response": [turn("assistant", "So") + turn("user", "what?") + turn("assistant", "Bye")]}
    )  # fmt: skip
    sequences = full_sequences(text_segments(conversation, minilm), 64)
    assert " ".join(row(sequences, 0, minilm)) == (
        "[CLS] system : be kind human : hi assistant : yes ? assistant : so human : what ? [SEP] bye [SEP]"
    )
    assert span(sequences, 0, minilm, "response") == ["bye"]
    assert span(sequences, 0, minilm, "prompt")[-2:] == ["what", "?"]


def test_special_tokens_in_a_text_stay_text(minilm):
    segments = text_segments(texts_of(("ignore [SEP] this", "[CLS] [MASK] [PAD] ok")), minilm)
    ids = full_sequences(segments, 64).ids.tolist()
    assert [ids.count(minilm.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]", "[MASK]", "[PAD]")] == [
        1,
        2,
        0,
        0,
    ]
    assert minilm.decode(segments.responses[0]) == "[ cls ] [ mask ] [ pad ] ok"


def test_the_tokenizer_files_own_limit_of_128_tokens_is_off(minilm):
    segments = text_segments(texts_of(("word " * 300, "short"), ("short", "word " * 300)), minilm)
    assert [len(ids) for ids in segments.prompts] == [302, 3]
    assert [len(ids) for ids in segments.responses] == [1, 300]
    assert full_sequences(segments, 256).lengths.tolist() == [256, 256]


@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1), st.integers(40, 500))
def test_what_is_kept_fits_and_wastes_nothing(counts, room):
    n_prompt, n_response = np.array(counts).T
    prompt, response = kept_tokens(n_prompt, n_response, room)
    assert ((prompt + response) == np.minimum(n_prompt + n_response, room)).all()
    assert (prompt >= np.minimum(n_prompt, 32)).all()
    assert ((response == n_response) | (prompt <= 32)).all()  # a response is cut only when the prompt is down to 32


def test_cuts_keep_the_prompts_tail_and_the_responses_head():
    segments = Segments([[*range(100, 160)]], [[*range(200, 240)]], [1], [2], [3])
    sequences = full_sequences(segments, 64)  # room 61 = 32 of the prompt + 29 of the response
    assert sequences.ids.tolist() == [1, *range(128, 160), 2, *range(200, 229), 3]
    assert [cut.tolist() for cut in is_cut(segments, 64)] == [[True], [True]]
    assert response_sequences(segments, 20).ids.tolist() == [1, *range(200, 218), 3]


def test_equal_sequences_are_kept_once():
    segments = Segments([[7], [7], [8]], [[*range(100)], [*range(90)], [*range(100)]], [1], [2], [3])
    full, response = full_sequences(segments, 64), response_sequences(segments, 64)
    assert (full.index.tolist(), len(full.lengths)) == ([0, 0, 1], 2)
    assert (response.index.tolist(), len(response.lengths)) == ([0, 0, 0], 1)


def test_too_small_a_limit_is_refused():
    with pytest.raises(CurateError, match="--max-tokens 47: too few; give at least 48"):
        full_sequences(Segments([], [], [], [], []), 47)


def test_token_lengths_can_be_recounted(make_pairs, tmp_path):
    long = "good " * 70
    pairs = make_pairs(
        ("a b", "c d e", ""),
        ("a b", long + "a", long + "b"),
        (long, "a", "b"),
        ("a", "good", "GOOD"),
        ("a", "b", "b"),
    )
    options = FeatureOptions(backbone=write_encoder(tmp_path), max_tokens=64)
    found = token_lengths(pairs, options)
    rows = [  # human : a b
        ("toy:train:0", 4, 3, 0, False, False, False),
        ("toy:train:1", 4, 71, 71, False, True, True),
        ("toy:train:2", 72, 1, 1, True, False, False),
        ("toy:train:3", 3, 1, 1, False, False, True),  # different texts, the same tokens
        ("toy:train:4", 3, 1, 1, False, False, False),  # the same text: another check's matter
    ]
    assert found.rows() == rows
    assert found.columns[1:] == [
        "n_prompt_tokens", "n_chosen_tokens", "n_rejected_tokens", "is_prompt_cut", "is_response_cut", "is_equal_after_cut",
    ]  # fmt: skip


def test_a_decoder_without_a_template_reads_the_conversation_as_text(tiny_decoder):
    sequences = full_sequences(text_segments(texts_of(("a b", "good")), tiny_decoder), 64)
    assert row(sequences, 0, tiny_decoder) == ["<s>", "human", ":", "a", "b", "assistant", ":", "good", "</s>"]
    assert span(sequences, 0, tiny_decoder, "response") == ["good"]


@pytest.fixture
def chat(tiny_decoder):
    tiny_decoder.chat_template = CHATML
    yield tiny_decoder
    tiny_decoder.chat_template = None


def test_a_chat_template_is_used_as_it_is(chat):
    sequences = full_sequences(text_segments(texts_of(("a b", "good")), chat), 64)
    expected = ["<s>", "[UNK]", ":", "a", "b", "</s>", "<s>", "assistant", ":", "good", "</s>"]  # user is no word of it
    assert row(sequences, 0, chat) == expected
    assert span(sequences, 0, chat, "response") == ["good", "</s>"]
    assert span(sequences, 0, chat, "prompt") == expected[1:-2]  # the begin token is the head of every sequence


def test_a_cut_response_keeps_what_the_template_closes_it_with(chat):
    sequences = full_sequences(text_segments(texts_of(("a b", "good " * 100)), chat), 48)
    assert row(sequences, 0, chat)[-3:] == ["good", "good", "</s>"]
    assert len(row(sequences, 0, chat)) == 48
    responses = response_sequences(text_segments(texts_of(("a b", "good " * 100)), chat), 48)
    assert row(responses, 0, chat) == ["<s>", *["good"] * 46, "</s>"]


def test_a_text_that_the_template_leaves_open_is_cut_as_it_is(chat):
    """A last message that is not an assistant's, say, after which no end is written."""
    chat.chat_template = CHATML.replace(
        "</s>{% endfor %}", "{% if m['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    )
    open_ended = texts_of(("a b", "good")).with_columns(response=pl.Series([turn("user", "good " * 100)]))
    assert row(full_sequences(text_segments(open_ended, chat), 48), 0, chat)[-2:] == ["good", "good"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, True),
        (CHATML, True),
        (CHATML.replace("</s>", "[SEP]"), False),  # ends with a special token that is not its eos
        (CHATML.replace("</s>", ""), False),
    ],
)
def test_whether_texts_end_with_the_eos_token(tiny_decoder, template, expected):
    tiny_decoder.chat_template = template
    assert ends_with_eos(tiny_decoder) is expected
    ids = full_sequences(text_segments(texts_of(("a", "good")), tiny_decoder), 48).ids.tolist()
    assert (ids[-1] == tiny_decoder.eos_token_id) is expected
    tiny_decoder.chat_template = None


def test_special_tokens_in_a_message_do_not_pass_through_a_chat_template(chat):
    sequences = full_sequences(text_segments(texts_of(("a </s><s> b", "good </s>")), chat), 64)
    assert row(sequences, 0, chat).count("<s>") == row(sequences, 0, chat).count("</s>") == 2
    assert sequences.ids.tolist().count(VOCABULARY["[UNK]"]) > 3  # their letters and signs, none of them words


def test_a_chat_template_that_refuses_a_conversation_says_so(chat):
    chat.chat_template = "{{ raise_exception('roles must alternate') if messages | length > 2 else 'a' }}"
    three = pl.DataFrame({"prompt": [turn("user", "a") + turn("user", "b")], "response": [turn("assistant", "c")]})
    with pytest.raises(CurateError, match=r"refuses a conversation of user, user, assistant \(roles must alternate\)"):
        text_segments(three, chat)


@pytest.mark.parametrize("has_template", [False, True])
def test_empty_prompts_and_responses_are_read(tiny_decoder, has_template):
    tiny_decoder.chat_template = CHATML if has_template else None
    silent = pl.DataFrame(
        {"prompt": [[], turn("user", "")], "response": [turn("assistant", "good"), turn("assistant", "")]},
        schema_overrides={"prompt": texts_of(("a", "b")).schema["prompt"]},
    )
    sequences = full_sequences(text_segments(silent, tiny_decoder), 64)
    assert len(sequences.lengths) == 2
    tiny_decoder.chat_template = None


@given(st.lists(st.integers(0, 50)), st.integers(1, 100))
def test_batches_hold_every_row_once_within_the_budget(lengths, budget):
    lengths = np.array(lengths, dtype=np.int64)
    found = batches(lengths, budget)
    assert sorted(np.concatenate([*found, []]).tolist()) == np.flatnonzero(lengths).tolist()
    assert all(len(rows) == 1 or lengths[rows].max() * len(rows) <= budget for rows in found)
    assert all((np.diff(lengths[rows]) <= 0).all() for rows in found)


def test_padding_is_on_the_right_and_masked():
    sequences = full_sequences(Segments([[5], [5, 6]], [[7], [7, 8]], [1], [2], [3]), 64)
    ids, mask = padded(sequences, np.array([1, 0]), pad_id=9)
    assert ids.tolist() == [[1, 5, 6, 2, 7, 8, 3], [1, 5, 2, 7, 3, 9, 9]]
    assert (mask == (ids != 9)).all()


def test_progress_counts_to_its_total(minilm):
    calls = []
    text_segments(texts_of(("a", "b"), ("a", "c")), minilm, lambda *call: calls.append(call))
    assert calls == [("tokenise prompts", 1, 1), ("tokenise responses", 2, 2)]
