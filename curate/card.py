"""What lies beside the exported pairs for people and for TRL: the dataset card (README.md) and trl_reward.yaml.

Both are made of what provenance.json holds, and so is what the terminal says of an export.
"""

import html
import re
from collections.abc import Mapping
from typing import Any

import polars as pl
import yaml

from curate.pairs import text_of
from curate.writers import CARRIES_ALL, COPIES, FOR_TRL, WRITERS

JUDGED_PAIRS = 300  # whose language is looked at
JUDGED_CHARS = 800
FEWEST_SHARE = 0.1  # of the judged pairs that a language needs to be named
NO_LANGUAGE = "zxx"  # ISO 639: the identifier is sure that there is none
TRL_MAX_LENGTH = 1024  # the default of trl's RewardTrainer, which drops pairs that are longer


def remarks(found: Mapping[str, Any]) -> list[str]:
    """What has to be known of an export, one sentence each: what the format could not carry, and how it can be had."""
    counts, options = found["counts"], found["export"]
    writer, said = WRITERS[options["format"]], []
    if counts["not carried"]:
        lost = [f"{n:,} {why}" for why, n in found["removed"].items() if is_loss(why)]
        said.append(f"left out: {'; '.join(lost)} (--format {CARRIES_ALL} carries them)")
    if counts["smoothed"] and not writer.has_soft_label and options["smoothed"] == "keep":
        said.append(
            f"{counts['smoothed']:,} pairs in doubt are written with their hard label, because format {options['format']} "
            f"has no soft label per pair (--format {CARRIES_ALL} has: label_prob)"
        )
    if found["n_graded"] and not writer.has_soft_label:
        said.append(
            f"{found['n_graded']:,} pairs have a graded label in the data, which is written as a hard one "
            f"(--format {CARRIES_ALL} has it: label_strength)"
        )
    if counts["smoothed"] and options["smoothed"] == "duplicate":
        said.append(
            f"every pair is there {COPIES} times ({found['rows']:,} rows), of the {counts['smoothed']:,} pairs in doubt as "
            f"many with the responses exchanged as the label is in doubt: train 1/{COPIES} of the epochs"
        )
    if n_over := found.get(f"n_over_{TRL_MAX_LENGTH}_tokens"):
        said.append(
            f"{n_over:,} of the exported pairs are over {TRL_MAX_LENGTH:,} tokens (as {found['tokens_of']} counts), TRL's "
            "default limit; TRL drops such pairs"
        )
    if options["format"] == "full" and not found["trl_reads_all"]:
        said.append(
            "TRL cannot train on this folder (ties, tool calls or empty lists are in it): export with --format trl"
        )
    return said


def is_loss(reason: str) -> bool:
    """True for a reason of removal that is the format's and not the policy's.

    >>> is_loss("tie: not carried by trl"), is_loss("label probably wrong")
    (True, False)
    """
    return reason.startswith("smoothed: left out") or any(
        reason.endswith(f": not carried by {name}") for name in WRITERS
    )


def card(found: Mapping[str, Any]) -> str:
    """The dataset card (README.md): metadata that names the curated split only, how it was made, and what it lacks."""
    counts, writer = found["counts"], WRITERS[found["export"]["format"]]
    columns = {name: meaning for name, meaning in writer.columns.items() if name in found["columns"]}
    n, name = counts["kept"] + counts["flipped"] + counts["smoothed"], markdown(found["source"])
    parts = [
        f"---\n{metadata(found)}\n---",
        f"# {name}, curated",
        f"{n:,} preference pairs of {counts['read']:,} in {name}, cleaned with [prefcurate](https://pypi.org/project/prefcurate/).",
        f"## How it was made\n\n{how(found)}",
        f"## Pairs\n\n{markdown_table(('', 'pairs'), counts)}",
        f"## What was removed and why\n\n{markdown_table(('reason', 'pairs'), found['removed'])}"
        if found["removed"]
        else "",
        f"## Columns\n\n{markdown_table(('column', 'meaning'), columns)}",
        f"## Caveats\n\n{caveats(found)}",
        f"## How to load it\n\n{how_to_load(found)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def metadata(found: Mapping[str, Any]) -> str:
    """The YAML at the head of a card, which the Hub reads."""
    from huggingface_hub import DatasetCardData

    tags = ["preference", "reward-model", "prefcurate"]
    return DatasetCardData(
        language=found.get("languages") or None,
        license=found["export"]["license"],
        pretty_name=f"{' '.join(found['source'].split())}, curated",
        tags=["trl", *tags] if found["export"]["format"] in FOR_TRL else tags,
        size_categories=[size_category(found["rows"])],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
        dataset_info={"features": found["features"]},  # of JSON lines, datasets would guess them from the first rows
    ).to_yaml()


def features(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The columns of a table and their types, as the Hub's `dataset_info` has them.

    >>> features({"votes": pl.List(pl.Float64), "margin": pl.Float32})
    [{'name': 'votes', 'list': 'float64'}, {'name': 'margin', 'dtype': 'float32'}]
    """
    return [{"name": name, **_feature(dtype)} for name, dtype in schema.items()]


def _feature(dtype: Any) -> dict[str, Any]:
    if not isinstance(dtype, pl.List):
        return {"dtype": str(dtype).lower()}  # String, Int64, Float32
    if isinstance(dtype.inner, pl.Struct):
        return {"list": features({entry.name: entry.dtype for entry in dtype.inner.fields})}
    return {"list": str(dtype.inner).lower()}


def how(found: Mapping[str, Any]) -> str:
    """What was done to the data, in a few sentences."""
    options = found["export"]
    return (
        f"An ensemble of reward models voted on every pair (curate audit, prefcurate {found['versions']['prefcurate']}); "
        f"policy `{markdown(found['policy'])}` decided from its votes and from data checks what to keep, flip, smooth and "
        f"drop; written as format `{options['format']}` ({WRITERS[options['format']].help}). `provenance.json` has the input's "
        "hash, all settings and versions, and the hash of every file here."
    )


def caveats(found: Mapping[str, Any]) -> str:
    """A list of what to know before training on the export."""
    said = [
        "The labels were judged by models, which can be wrong: `removed/removed.parquet` has every removed pair with its "
        "reason, `removed/diff.parquet` what was changed.",
        *(f"{remark[0].upper()}{remark[1:]}." for remark in remarks(found)),
    ]
    if "margin" in found["columns"]:
        said.append(
            f"`margin` is in units of the ensemble's rewards, whose median difference is {found['margin_scale']:.3g}: "
            "rescale it to the model you train."
        )
    if found["export"]["license"] == "unknown":
        said.append("The licence of the data was not given.")
    return "\n".join(f"- {markdown(sentence)}" for sentence in said)


def how_to_load(found: Mapping[str, Any]) -> str:
    """The commands that read the export."""
    lines = ["```python", "import datasets", 'pairs = datasets.load_dataset("path/of/this/folder")["train"]', "```"]
    if found["trl_reads_all"]:
        lines += [
            "",
            "To train a reward model with TRL, inside this folder:",
            "",
            "    trl reward --config trl_reward.yaml",
        ]
    return "\n".join(lines)


def markdown(text: str) -> str:
    """A text as one line of Markdown that is shown as it is, whoever wrote it; the code marks of ours stay.

    >>> markdown("<b>a|b\\n[c](d)")
    '&lt;b&gt;a\\\\|b \\\\[c\\\\](d)'
    """
    return re.sub(r"([|\[\]*\\#])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def markdown_table(heads: tuple[str, str], rows: Mapping[str, int | str]) -> str:
    """A table of two columns, numbers to the right."""
    is_count = all(isinstance(value, int) for value in rows.values())
    cells = [
        (markdown(name), f"{value:,}" if isinstance(value, int) else markdown(value)) for name, value in rows.items()
    ]
    lines = [heads, ("---", "---:" if is_count else "---"), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def languages_of(pairs: pl.DataFrame) -> list[str]:
    """The languages of the pairs, the most frequent first: of 300 pairs spread over the table, those of a tenth or more.

    A pair whose language is not clear counts for none.
    """
    from curate.check_language import languages

    sample = pairs.gather_every(max(1, len(pairs) // JUDGED_PAIRS)).head(JUDGED_PAIRS)
    text = pl.concat_str(map(text_of, ("prompt", "chosen")), separator="\n").str.head(JUDGED_CHARS).alias("text")
    texts = sample.select(text).to_series()
    found = texts.replace_strict(languages(texts.unique()), default=None, return_dtype=pl.String).drop_nulls()
    counted = found.filter(found != NO_LANGUAGE).value_counts(name="n").filter(pl.col("n") >= FEWEST_SHARE * len(texts))
    return counted.sort("n", "text", descending=[True, False])["text"].to_list()


def size_category(n: int) -> str:
    """The Hub's size bucket of n rows.

    >>> size_category(999), size_category(8552), size_category(2_000_000)
    ('n<1K', '1K<n<10K', '1M<n<10M')
    """
    bounds = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    for i, bound in enumerate(bounds):
        if n < 10 ** (3 + i):
            return f"n<{bound}" if i == 0 else f"{bounds[i - 1]}<n<{bound}"
    return "n>1T"


def trl_config(found: Mapping[str, Any]) -> str:
    """A `trl reward --config trl_reward.yaml` file that trains on the export from inside its folder."""
    is_duplicated = found["rows"] > sum(found["counts"][name] for name in ("kept", "flipped", "smoothed"))
    settings = {
        "model_name_or_path": "Qwen/Qwen3-0.6B",
        "dataset_name": "./data",  # datasets 5.2 gives "." no name and fails
        "output_dir": "../reward-model",  # not in this folder, which the next export replaces
        "num_train_epochs": 1 / COPIES if is_duplicated else 1,
        "per_device_train_batch_size": 8,
        "learning_rate": 1.0e-4,
        "max_length": TRL_MAX_LENGTH,
        "center_rewards_coefficient": 0.01,
    }
    return "# Run inside this folder: trl reward --config trl_reward.yaml\n" + yaml.safe_dump(settings, sort_keys=False)
