import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import polars as pl
import pytest
import yaml

from curate.card import NO_LANGUAGE, card, languages_of, remarks, size_category, trl_config
from curate.export import ExportOptions, split_pairs, write_export
from curate.writers import WRITERS
from tests.decided import decided

PROVENANCE = {
    "source": "toy",
    "policy": "auto",
    "versions": {"prefcurate": "0.1.0"},
    "margin_scale": 0.5,
    "languages": ["en", "zh"],
    "n_over_1024_tokens": 7,
    "tokens_of": "minilm",
}
ACTIONS = ["keep", "flip", "smooth", "drop", "keep"]
CONFIGS = [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}]


@pytest.fixture
def found(make_pairs, tmp_path):
    """A function that exports five pairs, one for each action and a tie, and gives what provenance.json holds."""

    def export(provenance=PROVENANCE, **options):
        rows = [(f"question {i}", f"good {i}", f"bad {i}") for i in range(5)]
        pairs = make_pairs(*rows, label_strength=[None, None, None, None, 0.5])
        chosen = ExportOptions(**options)
        split = split_pairs(pairs, decided(pairs, ACTIONS), chosen, "standard")
        return write_export(tmp_path / "out", split, "standard", chosen, provenance)

    return export


@pytest.mark.parametrize("name", WRITERS)
def test_the_metadata_is_what_the_hub_reads(found, name):
    from huggingface_hub import DatasetCard

    read = DatasetCard(card(found(format=name, license="mit")))
    data = read.data.to_dict()
    assert data["license"] == "mit"
    assert data["language"] == ["en", "zh"]
    assert data["pretty_name"] == "toy, curated"
    assert data["size_categories"] == ["n<1K"]
    assert data["configs"] == CONFIGS
    assert ("trl" in data["tags"]) == (name in ("trl", "full"))
    assert "preference" in data["tags"]
    columns = read.text.split("## Columns")[1].split("##")[0]
    assert all(f"| {column} |" in columns for column in found(format=name)["columns"])


@pytest.fixture
def hub(monkeypatch):
    """A local stand-in of the Hub's card validation, which answers by `problem_of`; gives the bodies it was sent."""
    bodies = []

    class Validator(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append((self.path, body))
            problem = problem_of(body["content"])
            self.send_response(400 if problem else 200)
            self.end_headers()
            self.wfile.write((problem or "ok").encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Validator)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield bodies
    server.shutdown()
    server.server_close()


def problem_of(content):
    """What is wrong with a card by rules that are not ours, None where nothing is.

    huggingface_hub reads it; datasets has the rules for its `configs` and `dataset_info`, and the Hub's names of languages
    and sizes; licences are those of SPDX. The Hub's own schema is not published. So the tests do not show that the Hub
    takes a card, only that it breaks none of these rules: of SPDX's licences the Hub knows some, and has names of its own.
    """
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard
    from packaging.licenses import canonicalize_license_expression

    try:
        data = DatasetCard(content).data
        MetadataConfigs.from_dataset_card_data(data)
        DatasetInfosDict.from_dataset_card_data(data)
        if data.license != "unknown":
            canonicalize_license_expression(data.license)
    except (ValueError, yaml.YAMLError) as error:
        return str(error)
    named = {"language": set(data.language or []), "size_categories": set(data.size_categories)}
    unknown = [f'"{field}": {names - hub_names(field)} unknown' for field, names in named.items()]
    return next((problem for problem in unknown if "set()" not in problem), None)


def hub_names(field):
    """The names of a field of the metadata, as datasets brings them."""
    import datasets

    file = {"language": "languages.json", "size_categories": "size_categories.json"}[field]
    return set(json.loads((Path(datasets.__file__).parent / "utils" / "resources" / file).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("line", "other", "problem"),
    [
        ("license: mit", "license: no-such", "Unknown license: 'no-such'"),
        ("- en", "- english", "\"language\": {'english'} unknown"),
        ("- n<1K", "- n<2K", "\"size_categories\": {'n<2K'} unknown"),
        ("split: train", "split: tr-ain", "Expected data_files in YAML to be"),
        ("dtype: string", "dtype: text", "Feature type 'Text' not found"),
        ("license: mit", "license: [", "while parsing"),
    ],
)
def test_the_stand_in_refuses_what_breaks_a_rule(found, line, other, problem):
    good = card(found(license="mit"))
    assert problem_of(good) is None
    assert line in good
    assert problem in problem_of(good.replace(line, other))


def test_every_language_and_size_that_a_card_can_name_is_one_of_the_hubs():
    from curate.check_language import _identifier

    kikuyu = "kik"  # ISO 639-3, where the list has the shorter code
    assert set(_identifier().labels) - {NO_LANGUAGE, kikuyu} <= hub_names("language")
    assert {size_category(10**power) for power in range(14)} == hub_names("size_categories") - {"unknown"}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the client keeps its connection
def test_a_card_goes_to_the_hub_as_its_client_sends_it_and_breaks_no_known_rule(found, hub):
    from huggingface_hub import DatasetCard

    hostile = PROVENANCE | {"source": 'a: "b" #c --- {d}\n- e', "policy": "x|y"}
    for name in WRITERS:
        for provenance in (PROVENANCE, hostile):
            DatasetCard(card(found(provenance, format=name))).validate()
    for path, body in hub:
        assert (path, body["repoType"], set(body)) == ("/api/validate-yaml", "dataset", {"repoType", "content"})
    assert len(hub) == 2 * len(WRITERS)
    with pytest.raises(ValueError, match="license"):
        DatasetCard(card(found(license="no-such"))).validate()


def test_texts_of_the_data_stay_texts(found):
    text = card(found(PROVENANCE | {"source": "<script>x</script>\n# [a](b)", "policy": "a|b"}))
    body = text.split("---\n", 2)[2]
    assert "<script>" not in body
    assert "# &lt;script&gt;x&lt;/script&gt; \\# \\[a\\](b), curated" in body
    assert "a\\|b" in body


def test_the_card_says_what_was_removed_and_why(found):
    text = card(found())
    assert "| dropped | 1 |" in text
    assert "| broken | 1 |" in text
    assert "| tie: not carried by trl | 1 |" in text
    assert "whose median difference is 0.5" in text
    assert "trl reward --config trl_reward.yaml" in text
    assert "trl reward --config" not in card(found(format="full"))


@pytest.mark.parametrize(
    ("options", "sentences"),
    [
        (
            {},
            [
                "left out: 1 tie: not carried by trl (--format full carries them)",
                "1 pairs in doubt are written with their hard label, because format trl has no soft label per pair "
                "(--format full has: label_prob)",
                "7 of the exported pairs are over 1,024 tokens (as minilm counts), TRL's default limit; TRL drops such pairs",
            ],
        ),
        (
            {"smoothed": "drop"},
            [
                "left out: 1 smoothed: left out by --smoothed drop; 1 tie: not carried by trl (--format full carries them)",
                "7 of the exported pairs are over 1,024 tokens (as minilm counts), TRL's default limit; TRL drops such pairs",
            ],
        ),
        (
            {"format": "full"},
            [
                "7 of the exported pairs are over 1,024 tokens (as minilm counts), TRL's default limit; TRL drops such pairs",
                "TRL cannot train on this folder (ties, tool calls or empty lists are in it): export with --format trl",
            ],
        ),
    ],
)
def test_what_has_to_be_known_of_an_export(found, options, sentences):
    export = found(**options)
    assert remarks(export) == sentences
    assert all(f"- {sentence[0].upper()}" in card(export) for sentence in sentences)


def test_graded_labels_that_become_hard_are_counted(make_pairs, tmp_path):
    pairs = make_pairs(*[("a", "b", "c")] * 3, label_strength=[0.75, None, 0.5])
    for name, expected in {
        "trl": ["1 pairs have a graded label in the data, which is written as a hard one"],
        "full": [],
    }.items():
        options = ExportOptions(format=name)
        split = split_pairs(pairs, decided(pairs), options, "standard")
        found = write_export(tmp_path / name, split, "standard", options, PROVENANCE)
        assert [remark.split(" (")[0] for remark in remarks(found) if "graded" in remark] == expected


def test_duplicates_are_told_and_train_for_a_quarter(found):
    export = found(smoothed="duplicate")
    assert "every pair is there 4 times (12 rows), of the 1 pairs in doubt" in " ".join(remarks(export))
    assert yaml.safe_load(trl_config(export))["num_train_epochs"] == 0.25
    assert yaml.safe_load(trl_config(found()))["num_train_epochs"] == 1


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL passes transformers options that go away in v6
def test_trls_own_parser_takes_the_config(found, tmp_path, monkeypatch):
    """As `trl reward --config` does: every setting is one of TRL's, and its dataset is that of the folder."""
    import datasets

    trl = pytest.importorskip("trl")
    found()
    monkeypatch.chdir(tmp_path / "out")
    parser = trl.TrlParser(
        (trl.ScriptArguments, trl.RewardConfig, trl.ModelConfig, trl.scripts.utils.DatasetMixtureConfig)
    )
    script, training, model, _ = parser.parse_args_and_config(
        ["--config", "trl_reward.yaml", "--use_cpu", "--bf16", "false"]
    )
    assert (script.dataset_name, model.model_name_or_path) == ("./data", "Qwen/Qwen3-0.6B")
    assert (training.max_length, training.learning_rate, training.center_rewards_coefficient) == (1024, 1e-4, 0.01)
    loaded = datasets.load_dataset(script.dataset_name, cache_dir=str(tmp_path / "cache"))
    assert len(loaded[script.dataset_train_split]) == 3
    assert set(loaded[script.dataset_train_split].column_names) == {"prompt", "chosen", "rejected", "margin"}


def test_languages_are_those_of_a_tenth_of_the_pairs_or_more(make_pairs):
    english = ("What is the colour of the sky in the morning?", "It is blue, and that is what they would say.", "Red.")
    chinese = (
        "天空在早晨是什么颜色的？请详细地告诉我为什么会是这样。",
        "天空是蓝色的，因为空气散射了太阳光中的蓝光。",
        "红色。",
    )
    pairs = make_pairs(*[english] * 30, *[chinese] * 10)
    assert languages_of(pairs) == ["en", "zh"]
    assert languages_of(make_pairs(*[english] * 30, chinese)) == ["en"]
    assert languages_of(make_pairs(("1 + 1", "2", "3"))) == []
    assert languages_of(make_pairs(("xkq zzv 00", "ff 3c 7a", "3"))) == []  # surely no language
    assert languages_of(pl.concat([pairs] * 20)) == ["en", "zh"]
