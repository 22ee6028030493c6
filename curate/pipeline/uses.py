"""What is made of a finished run: the export, the retrained model, samples, answers and comparisons."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from curate import export as export_stage
from curate import policy as policy_stage
from curate.errors import CurateError
from curate.export import read_provenance
from curate.formats import ReadOptions, read_all
from curate.options import FeatureOptions, RetrainOptions
from curate.pairs import is_tie
from curate.pipeline.stages import pair_lengths
from curate.run import Progress, Run, no_progress
from curate.sources import Data
from curate.targets import refuse_folder

if TYPE_CHECKING:
    from curate.diff import Diff


def sample(run: Run, to: str | os.PathLike[str], n: int = 300, seed: int = 0, overwrite: bool = False) -> pl.DataFrame:
    """Draw pairs uniformly at random for a person to verify, and write them to `to` (.csv, .jsonl or .parquet)."""
    from curate.answer import refuse_target, write_table
    from curate.verified import sample_pairs

    drawn = sample_pairs(run.read("pairs"), n, seed)
    refuse_target(Path(to), run.path, overwrite)
    write_table(drawn, Path(to))
    return drawn


def export(
    run: Run,
    to: str | os.PathLike[str],
    options: export_stage.ExportOptions = export_stage.ExportOptions(),
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, int]:
    """Write the cleaned dataset to the folder `to`; returns the counts, which add up to the pairs read.

    What was written and why pairs were left out is in its provenance.json.
    """
    from curate.card import languages_of
    from curate.writers import FOR_TRL, WRITERS, read_scores

    decided = run.stage("decide")
    refuse_folder(Path(to), overwrite, "provenance.json")
    to = Path(to).absolute()  # "." has no name to write beside
    pairs, form = run.read("pairs"), run.stage("load")["facts"]["form"]
    columns = [run.decisions, run.strength.drop("pair_id", "label_prob")]
    if WRITERS[options.format].needs_scores:
        columns.append(read_scores(run.path, pairs["pair_id"]))
    split = export_stage.split_pairs(pairs, pl.concat(columns, how="horizontal"), options, form)
    provenance = {
        "source": pairs["source"][0],
        "input": run.manifest["input"],
        "versions": run.manifest["versions"],
        "policy": decided["facts"]["policy"],
        "margin_scale": decided["facts"]["margin_scale"],
        "languages": languages_of(split.curated),
        **(_lengths_for_trl(split.curated, progress) if options.format in FOR_TRL else {}),
        "options": {name: stage["options"] for name, stage in run.manifest["stages"].items()},
    }
    export_stage.write_export(to, split, form, options, provenance, progress)
    return split.counts


def _lengths_for_trl(curated: pl.DataFrame, progress: Progress) -> dict[str, Any]:
    """How many exported pairs are over TRL's limit, and whose tokens were counted: those of the backbone that is always there.

    The pairs read were counted by the stage check, but those that were dropped or not carried among them.
    """
    from curate.card import TRL_MAX_LENGTH
    from curate.check_lengths import length_facts

    counting = FeatureOptions(max_tokens=TRL_MAX_LENGTH)
    found = length_facts(pair_lengths(curated, counting, progress))
    name = f"n_over_{TRL_MAX_LENGTH}_tokens"
    return {name: found[name], "tokens_of": counting.backbone}


def push(folder: str | os.PathLike[str], repo: str, *, private: bool = False, overwrite: bool = False) -> str:
    """Upload an export folder as the dataset `repo` (org/name) of the Hub, count its rows there, and return its address."""
    from curate.push import push as push_folder

    rows = read_provenance(folder)["rows"]
    return push_folder(Path(folder), repo, rows, private=private, overwrite=overwrite)


def retrain(
    run: Run,
    to: str | os.PathLike[str],
    options: RetrainOptions = RetrainOptions(),
    test: "Data | None" = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Train a reward model on the curated split and one on the raw split, and compare them on held-out prompts.

    Writes the model folder of DESIGN.md and returns comparison.json. `test` is another dataset (gold labels, say) to
    compare on; a prompt group that it shares with the run is refused.
    """
    from rm_ensemble.retrain import retrain as retrain_pairs

    facts = run.stage("decide")["facts"]
    refuse_folder(Path(to), overwrite, "comparison.json")
    test_pairs = None if test is None else read_all(test, ReadOptions(), progress).pairs
    is_raw_margin = facts["margin"] == "raw"
    return retrain_pairs(
        run.read("pairs"),
        run.decisions,
        Path(to).absolute(),
        options,
        features_folder=run.path / "features",
        test=test_pairs,
        margin_scale=None if is_raw_margin else facts["margin_scale"],
        progress=progress,
    )


def sql(run: Run, statement: str) -> pl.DataFrame:
    """The answer of one select statement over the tables of the run: pairs, checks, strength, decisions.

    Only tables that the statement names are read, and of those only the columns it needs; nothing else can be reached.
    """
    from curate import sql as sql_stage

    done = [name for name, stage in sql_stage.TABLES.items() if stage in run.manifest["stages"]]
    asked = sql_stage.named_tables(statement) or done  # one that has not been made yet is refused: which stage to run
    return sql_stage.query({name: run.scan(name) for name in asked}, statement)


def compare(
    run: Run,
    policies: Sequence[str],
    retraining: RetrainOptions | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """What each policy (a preset or a YAML file) would do, side by side; nothing is written to the run.

    With `retraining`, a reward model is trained on the decisions of each and compared with the raw one on the held-out
    prompts; the raw model is the same for all.
    """
    from curate.compare import compare as compare_policies
    from curate.guarantee import DEFAULT_MAX_WRONG_FLIPS, certify

    if not policies:
        raise CurateError(f"no policy to compare: choose from {', '.join(policy_stage.presets())}, or name YAML files")
    loaded = {name: policy_stage.load_policy(name) for name in policies}
    pairs = run.read("pairs")
    strengths, _ = certify(run.strength, pairs.select(is_tie()).to_series().to_numpy(), DEFAULT_MAX_WRONG_FLIPS, None)

    def worth(decisions: pl.DataFrame, policy: policy_stage.Policy) -> dict[str, Any]:
        from rm_ensemble.retrain import retrain as retrain_pairs

        assert retraining is not None
        with tempfile.TemporaryDirectory(prefix="curate-compare-") as folder:
            return retrain_pairs(
                pairs,
                decisions,
                Path(folder) / "model",
                retraining,
                features_folder=run.path / "features",
                margin_scale=None if policy.margin == "raw" else policy_stage.margin_scale(strengths),
                progress=lambda what, done, total: progress(f"{policy.name}: {what}", done, total),
            )

    return compare_policies(pairs, run.read("checks"), strengths, loaded, worth if retraining else None, progress)


def diff(a: Run, b: Run, progress: Progress = no_progress) -> "Diff":
    """What changed from run `a` to run `b`, two versions of a dataset or two audits of one; nothing is written."""
    from curate.diff import diff as diff_sides
    from curate.diff_side import names_of, read_side

    sides = []
    for run, name in zip((a, b), names_of(a, b), strict=True):
        sides.append(read_side(run, name))
        progress("compare runs", len(sides), 3)
    found = diff_sides(*sides)
    progress("compare runs", 3, 3)
    return found


def diff_page(found: "Diff", a: Run, b: Run, to: str | os.PathLike[str]) -> None:
    """Write what changed as one HTML page that opens offline."""
    from reports.diff_page import write_diff_page

    write_diff_page(found, a, b, Path(to))
