"""Features against transformers' own forward pass; their cache, its interruption, and what does not change them."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file
from tiny_models import LETTERS, write_decoder, write_encoder

from curate.errors import CurateError
from curate.options import DEFAULT_BLOCKS, FeatureOptions
from rm_ensemble import bert
from rm_ensemble import features as module
from rm_ensemble.backbone import find_backbone, load_backbone
from rm_ensemble.batches import full_sequences, padded, text_segments
from rm_ensemble.bert import PackedBert, is_packable
from rm_ensemble.features import features, parse_block

ALL_BLOCKS = (
    "full/0/first", "full/1/response", "full/1/prompt", "full/-1/last", "full/2/response", "response/2/mean", "response/0/last",
)  # fmt: skip
WORDS = ["what", "is", "good", "bad", *LETTERS]


def texts_of(*rows):
    turn = lambda role, content: [{"role": role, "content": content}]  # noqa: E731
    return pl.DataFrame([{"prompt": turn("user", p), "response": turn("assistant", r)} for p, r in rows])


def many_texts(n, seed=0, longest=20):
    rng = np.random.default_rng(seed)
    draw = lambda: " ".join(rng.choice(WORDS, rng.integers(1, longest)))  # noqa: E731
    return texts_of(*((draw(), draw()) for _ in range(n)))


def stacked(found):
    return np.concatenate([found.blocks[name] for name in found.blocks], axis=1)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return write_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(params=["encoder", "decoder"])
def backbone(request):
    return request.getfixturevalue(request.param)


def by_hand(backbone, prompt, response, block):
    """A block of one text: ids written out, one row, the model's own hidden states, a mean over a slice."""
    model, tokenizer = load_backbone(find_backbone(backbone))
    ids = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    if tokenizer.cls_token_id is None:
        head, p, middle, tail = ["<s>"], ids(f"human : {prompt} assistant :"), [], ["</s>"]
    else:
        head, p, middle, tail = ["[CLS]"], ids(f"human : {prompt}"), ["[SEP]"], ["[SEP]"]
    head, middle, tail = (tokenizer.convert_tokens_to_ids(part) for part in (head, middle, tail))
    r = ids(response)
    text, layer, pool = parse_block(block)
    row = head + p + middle + r + tail if text == "full" else head + r + tail
    start = {"first": 0, "last": len(row) - 1, "prompt": len(head)}.get(pool, len(row) - len(tail) - len(r))
    stop = start + {"first": 1, "last": 1, "prompt": len(p)}.get(pool, len(r))
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states[layer][0]
    return hidden[start:stop].mean(dim=0).numpy()


def test_blocks_are_the_models_hidden_states_pooled(backbone):
    rows = [("what is a", "good b c"), ("d", "bad"), ("what is a", "e f g h")]
    found = features(texts_of(*rows), FeatureOptions(backbone, 64, "float32", ALL_BLOCKS))
    assert list(found.blocks) == list(ALL_BLOCKS)
    for name, block in found.blocks.items():
        assert block.dtype == np.float32
        for text, (prompt, response) in enumerate(rows):
            np.testing.assert_allclose(block[text], by_hand(backbone, prompt, response, name), atol=1e-5)


def test_neither_company_nor_order_changes_a_text_in_float32(backbone):
    texts, options = many_texts(60), FeatureOptions(backbone, 64, "float32", ALL_BLOCKS)
    together = stacked(features(texts, options))
    alone = np.concatenate([stacked(features(texts[[i]], options)) for i in range(0, 60, 20)])
    np.testing.assert_allclose(alone, together[::20], atol=1e-5)
    order = np.random.default_rng(1).permutation(60)
    np.testing.assert_allclose(stacked(features(texts[order], options)), together[order], atol=1e-5)


def test_the_embedded_default_in_company_alone_and_in_bfloat16():
    """Tolerances as the README states them: root mean square, relative to the block's own."""
    texts = many_texts(40, longest=80)
    exact = features(texts, FeatureOptions(dtype="float32"))
    rounded = features(texts, FeatureOptions(dtype="bfloat16"))
    alone = features(texts[:1], FeatureOptions(dtype="bfloat16"))
    assert tuple(exact.blocks) == DEFAULT_BLOCKS
    for name, block in exact.blocks.items():
        size = np.sqrt(np.mean(block**2))
        assert np.sqrt(np.mean((rounded.blocks[name] - block) ** 2)) < 0.02 * size
        assert np.sqrt(np.mean((alone.blocks[name] - rounded.blocks[name][:1]) ** 2)) < 0.02 * size


def test_the_same_call_gives_the_same_bits(encoder):
    texts, options = many_texts(50), FeatureOptions(encoder, 64, blocks=ALL_BLOCKS)
    assert np.array_equal(stacked(features(texts, options)), stacked(features(texts, options)))


@pytest.mark.parametrize("sharpness", [1, 1000])
def test_packed_rows_equal_padded_ones(encoder, monkeypatch, sharpness):
    """Sharp attention overflows the short softmax, and is done again the usual way."""
    usual = []
    softmax = torch.softmax
    monkeypatch.setattr(
        torch, "softmax", lambda *arguments, **options: usual.append(1) or softmax(*arguments, **options)
    )
    model, tokenizer = load_backbone(find_backbone(encoder))
    assert is_packable(model)
    for layer in model.encoder.layer:
        layer.attention.self.query.bias.data += sharpness - 1.0
    sequences = full_sequences(text_segments(many_texts(30), tokenizer), 64)
    rows = np.argsort(-sequences.lengths, kind="stable")
    ids, mask = (torch.from_numpy(array) for array in padded(sequences, rows, 0))
    with torch.inference_mode():
        packed = PackedBert(model).hidden(ids[mask], sequences.lengths[rows], n_layers=2)
        assert bool(usual) == (sharpness > 1)
        expected = model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    for layer in range(3):
        torch.testing.assert_close(packed[layer], expected[layer][mask], atol=1e-5, rtol=0)


def test_layers_nobody_asked_for_are_not_computed(encoder, monkeypatch):
    calls = []
    apply = PackedBert._apply
    monkeypatch.setattr(bert.PackedBert, "_apply", lambda *arguments: calls.append(1) or apply(*arguments))
    features(many_texts(3), FeatureOptions(encoder, 64, blocks=("full/1/response",)))
    assert len(calls) == 1


def test_empty_parts_are_zeros(backbone):
    blocks = ("full/2/response", "full/2/prompt", "response/2/mean")
    found = features(texts_of(("what", ""), ("", "good")), FeatureOptions(backbone, 64, blocks=blocks))
    assert not found.blocks["full/2/response"][0].any()
    assert not found.blocks["response/2/mean"][0].any()
    assert found.blocks["full/2/prompt"].all(axis=1).all()  # roles are part of a prompt
    assert all(np.isfinite(block).all() for block in found.blocks.values())


def test_no_texts_are_no_rows(encoder, tmp_path):
    found = features(many_texts(2).clear(), FeatureOptions(encoder, 64, blocks=ALL_BLOCKS), tmp_path)
    assert {block.shape for block in found.blocks.values()} == {(0, 16)}


def test_facts_count_what_was_read_and_cut(encoder):
    texts = texts_of(("a", "good"), ("a " * 70, "good"), ("a", "good " * 70), ("a", "GOOD"))
    facts = features(texts, FeatureOptions(encoder, 64, "float32", ("full/2/response", "response/2/mean"))).facts
    full = (1 + 3 + 1 + 1 + 1) + 64 + 64  # the last text is the first in capitals: the same tokens, read once
    assert facts == {
        "n_texts": 4, "n_tokens": full + 3 + 64, "n_prompts_cut": 1, "n_responses_cut": 1, "max_tokens": 64,
        "backbone": Path(encoder).name, "backbone_sha256": facts["backbone_sha256"], "dtype": "float32", "device": "cpu",
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    assert encoder not in json.dumps(facts)


def test_the_cache_is_read_back_and_the_model_not_loaded(encoder, tmp_path, monkeypatch):
    texts, options = many_texts(50), FeatureOptions(encoder, 64, blocks=ALL_BLOCKS)
    fresh = features(texts, options, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{fresh.key}.safetensors"]
    monkeypatch.setattr(module, "load_backbone", None)
    cached = features(texts, options, tmp_path)
    assert (cached.facts, cached.key) == (fresh.facts, fresh.key)
    on_disk = load_file(tmp_path / f"{fresh.key}.safetensors")  # a plain safetensors file to everyone else
    for name in ALL_BLOCKS:
        assert isinstance(cached.blocks[name], np.memmap)
        assert np.array_equal(cached.blocks[name], fresh.blocks[name])
        assert np.array_equal(cached.blocks[name], on_disk[name])


def test_the_cache_gives_what_memory_gives(encoder, tmp_path):
    texts, options = many_texts(50), FeatureOptions(encoder, 64, blocks=ALL_BLOCKS)
    assert np.array_equal(stacked(features(texts, options, tmp_path)), stacked(features(texts, options)))


def test_everything_that_changes_the_bits_changes_the_key(encoder, tmp_path, monkeypatch):
    texts = many_texts(2)
    base = FeatureOptions(encoder, 64, "float32", ("full/2/response",))
    other = Path(write_encoder(tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-3}))
    variants = [
        (texts, base),
        (texts[::-1], base),
        (texts, FeatureOptions(encoder, 63, "float32", base.blocks)),
        (texts, FeatureOptions(encoder, 64, "bfloat16", base.blocks)),
        (texts, FeatureOptions(encoder, 64, "float32", ("full/1/response",))),
        (texts, FeatureOptions(str(other), 64, "float32", base.blocks)),
    ]
    keys = [features(*variant).key for variant in variants]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1000)
    keys.append(features(texts, base).key)
    assert len(set(keys)) == len(keys)


def test_the_key_does_not_depend_on_where_the_model_lies(encoder, tmp_path):
    elsewhere = tmp_path / Path(encoder).name
    elsewhere.mkdir()
    for file in Path(encoder).iterdir():
        (elsewhere / file.name).write_bytes(file.read_bytes())
    keys = {features(many_texts(2), FeatureOptions(str(b), 64, blocks=ALL_BLOCKS)).key for b in (encoder, elsewhere)}
    assert len(keys) == 1


def test_an_interrupted_run_goes_on_where_it_was(encoder, tmp_path, monkeypatch):
    texts, options = many_texts(80), FeatureOptions(encoder, 64, blocks=ALL_BLOCKS)
    monkeypatch.setitem(module.BATCH_TOKENS, "cpu", 200)
    monkeypatch.setitem(module.SAVE_EVERY_TOKENS, "cpu", 500)
    whole = stacked(features(texts, options))
    ran = []
    pooled = module.pooled
    monkeypatch.setattr(module, "pooled", lambda *arguments: ran.append(1) or pooled(*arguments))

    def interrupt(what, done, total):
        if what == "features" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features(texts, options, tmp_path, interrupt)
    before = len(ran)
    assert not list(tmp_path.glob("*.safetensors"))
    resumed = features(texts, options, tmp_path)
    n_batches = len(ran) - before
    assert 0 < n_batches <= before + 2  # a bit more than half was done, and at most 500 tokens of it are done again
    assert np.array_equal(stacked(resumed), whole)
    assert [path.name for path in tmp_path.iterdir()] == [f"{resumed.key}.safetensors"]


def test_progress_ends_at_its_total(encoder):
    calls = []
    found = features(many_texts(5), FeatureOptions(encoder, 64, blocks=ALL_BLOCKS), progress=lambda *c: calls.append(c))
    assert calls[-1] == ("features", found.facts["n_tokens"], found.facts["n_tokens"])


@pytest.mark.parametrize("name", ["full/6", "full/x/response", "response/6/prompt", "text/length", "half/1/first"])
def test_unknown_blocks_are_refused(encoder, name):
    with pytest.raises(CurateError, match=f"unknown feature block '{name}': type full/LAYER/response"):
        features(many_texts(1), FeatureOptions(encoder, 64, blocks=(name,)))


def test_layers_and_lengths_beyond_the_model_are_refused(encoder):
    with pytest.raises(CurateError, match=r"feature block full/3/first: .* has layers 0 to 2 \(-1 = last\)"):
        features(many_texts(1), FeatureOptions(encoder, 64, blocks=("full/3/first",)))
    with pytest.raises(CurateError, match="--max-tokens 65: backbone .* reads at most 64"):
        features(many_texts(1), FeatureOptions(encoder, 65, blocks=("full/2/first",)))
