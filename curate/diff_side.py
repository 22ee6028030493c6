"""One of the two runs that are compared: its pairs without their texts, and what its stages left."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from curate.match import pair_keys
from curate.run import Run

TABLES = {"check": "checks", "strength": "strength", "decide": "decisions"}
COMPARED = {"check": "checks", "vote": "votes", "strength": "strengths", "decide": "decisions"}


@dataclass(frozen=True)
class Side:
    """A run as it is compared.

    `pairs` is that of `match.pair_keys`; `tables` are those of the stages `check`, `strength` and `decide`, by stage, in the
    row order of `pairs`; `manifest` is `run.json`; `missing` says of every other stage why it is not compared.
    """

    name: str
    pairs: pl.DataFrame
    tables: Mapping[str, pl.DataFrame]
    manifest: Mapping[str, Any]
    missing: Mapping[str, str]

    def facts(self, stage: str) -> dict[str, Any]:
        """What a stage found, as it is recorded; nothing of one that is missing."""
        record = {} if stage in self.missing else self.manifest["stages"][stage]
        found: dict[str, Any] = record.get("facts", {})
        return found

    def options(self, stage: str) -> dict[str, Any]:
        """What a stage was run with, finished or stale."""
        found: dict[str, Any] = self.manifest["stages"].get(stage, {}).get("options", {})
        return found

    def judged(self) -> pl.DataFrame:
        """The pairs with their strengths and actions, null where there are none."""
        strength = self._beside("strength", JUDGED)
        return pl.concat([self.pairs, strength, self._beside("decide", DECIDED)], how="horizontal")

    def _beside(self, stage: str, columns: pl.Schema) -> pl.DataFrame:
        if stage not in self.tables:
            return pl.DataFrame([pl.Series(n, [None] * len(self.pairs), dtype=t) for n, t in columns.items()])
        return self.tables[stage].select(columns.names()).cast(columns)


JUDGED = pl.Schema(
    {"strength_mean": pl.Float64(), "strength_rank": pl.Float64(), "label_prob": pl.Float64(), "kind": pl.String()}
)
DECIDED = pl.Schema({"action": pl.String(), "reason": pl.String()})


def names_of(a: Run, b: Run) -> list[str]:
    """What the two runs are called: their folders, with the folders above where those are the same."""
    paths = [run.path.resolve() for run in (a, b)]
    names = [path.name for path in paths]
    return names if names[0] != names[1] else ["/".join(path.parts[-2:]) for path in paths]


def read_side(run: Run, name: str) -> Side:
    """A run as it is compared; refuses one without pairs. A run that an older version of ours made can be read, too."""
    if not run.is_consistent("load"):
        run.stage("load")  # refuses, and says what to type
    pairs = pair_keys(pl.scan_parquet(run.path / "pairs.parquet"))
    done = run.manifest["stages"]
    missing = {
        stage: "is stale" if stage in done else "has not run" for stage in COMPARED if not run.is_consistent(stage)
    }
    tables = {
        stage: pl.read_parquet(run.path / f"{table}.parquet") for stage, table in TABLES.items() if stage not in missing
    }
    for table in tables.values():
        assert table["pair_id"].equals(pairs["pair_id"]), "stage tables have other pairs than pairs.parquet"
    return Side(name, pairs, tables, run.manifest, missing)
