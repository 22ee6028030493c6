"""How long the report of a large run takes, how much memory, how large the page is and how fast it opens.

    python benchmarks/report.py --pairs 10000 100000 1000000

Each size is a generated run folder (prompts, responses, checks, strengths and decisions as the stages write them) and a process
of its own, so that its peak memory is its own. A budget of issue 5: 1,000,000 pairs in a page under 6 MB that opens in under
2 seconds. Opening is measured in headless Chromium from the start of navigation: until the load event, until the first chart
stands, and until all do; the fastest of three.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

TEXT = """
the of and to in that it was for on are with as his they at be this from have or by one had not but what all were when we
there can an your which their said if do will each about how up out them then she many some so these would river mountain
garden winter summer teacher letter window music bridge harbour engine paper table animal story
"""
WORDS = TEXT.split()
N_SENTENCES = 20_000
CATEGORIES = tuple(f"category {i}" for i in range(12))
FOUND_SHARE = 0.01  # of the pairs, by each check


def messages(role: str, texts: pl.Series) -> pl.Expr:
    """A column of one message per pair."""
    return pl.concat_list(pl.struct(role=pl.lit(role), content=texts))


def fake_pairs(n_pairs: int, rng: np.random.Generator) -> pl.DataFrame:
    """Questions of two sentences, responses of four; three pairs a prompt, three sources and twelve categories."""
    from curate.pairs import PAIR_SCHEMA

    lengths = rng.integers(6, 18, N_SENTENCES)
    sentences = pl.Series([" ".join(rng.choice(WORDS, n)).capitalize() + "." for n in lengths])

    def text(n_sentences: int) -> pl.Series:
        parts = [sentences.gather(rng.integers(0, N_SENTENCES, n_pairs)) for _ in range(n_sentences)]
        return pl.select(pl.concat_str(parts, separator=" ")).to_series()

    group = np.arange(n_pairs) // 3
    columns = {
        "pair_id": "fake:train:" + pl.int_range(n_pairs, eager=True).cast(pl.String),
        "prompt": pl.select(messages("user", text(2).gather(group))).to_series(),
        "chosen": pl.select(messages("assistant", text(4))).to_series(),
        "rejected": pl.select(messages("assistant", text(4))).to_series(),
        "group": pl.Series(group).cast(pl.String),
        "is_heldout": group % 10 == 0,
        "label_strength": None,
        "votes": None,
        "annotators": None,
        "source": pl.Series(["one", "two", "three"]).gather(rng.integers(0, 3, n_pairs)),
        "extra": pl.Series([f'{{"category":"{name}"}}' for name in CATEGORIES]).gather(rng.integers(0, 12, n_pairs)),
    }
    table = pl.DataFrame({name: column for name, column in columns.items() if column is not None})
    nothing = [pl.lit(None).alias(name) for name, column in columns.items() if column is None]
    return table.with_columns(nothing).select(PAIR_SCHEMA.names()).cast(dict(PAIR_SCHEMA))


def fake_strength(pairs: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Votes of ten members that agree with seven labels in ten."""
    from curate.kinds import kind
    from curate.strength import STRENGTH_COLUMNS, strength, strength_rank

    differences = rng.normal(0.6, 1.0, (len(pairs), 1)) + rng.normal(0, 0.7, (len(pairs), 10))
    table = strength(differences).with_columns(
        pairs["pair_id"],
        strength_mean_raw=pl.col("strength_mean"),
        label_prob=1 / (1 + (-2 * pl.col("strength_mean")).exp()),
        verified=pl.lit(None, dtype=pl.String),
        flip_p=pl.lit(None, dtype=pl.Float64),
        keep_p=pl.lit(None, dtype=pl.Float64),
    )
    return table.with_columns(strength_rank(table["strength_mean"]), kind(2.0)).select(STRENGTH_COLUMNS)


def fake_checks(pairs: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Each check finds one pair in a hundred."""
    from curate.checks import ALL_CHECKS

    found = {check.__name__: rng.random(len(pairs)) < FOUND_SHARE for check in ALL_CHECKS}
    return pl.DataFrame({"pair_id": pairs["pair_id"], **found})


def check_facts(checks: pl.DataFrame) -> dict[str, Any]:
    """What the stage `check` leaves in run.json, with three findings about the data as a whole."""
    from curate.checks import fixes, meanings, severities

    names = [name for name in checks.columns if name != "pair_id"]
    about = {"severity": "note", "meaning": "The label prefers it.", "fix": "look", "null": 0.5, "is_too_narrow": False}
    numbers = {"value": 0.55, "low": 0.54, "high": 0.56, "n_pairs": len(checks), "n_groups": len(checks) // 3}
    return {
        "counts": {name: int(checks[name].sum()) for name in names},
        "meanings": meanings(),
        "severities": severities(),
        "fixes": fixes(),
        "biases": [{"name": name, **about, **numbers} for name in ("length_bias", "list_bias", "position_bias")],
        "n_over_512_tokens": len(checks) // 10,
        "n_over_1024_tokens": len(checks) // 100,
        "n_over_2048_tokens": 0,
    }


def write_run(path: Path, n_pairs: int) -> None:
    """A run folder in which every stage but the report has run."""
    from curate.policy import decide, load_policy
    from curate.run import Run, write_parquet

    rng = np.random.default_rng(0)
    pairs = fake_pairs(n_pairs, rng)
    strength, checks = fake_strength(pairs, rng), fake_checks(pairs, rng)
    accuracy = {"value": 0.7, "low": 0.69, "high": 0.71, "n_pairs": n_pairs, "n_groups": n_pairs // 3}
    votes = {"n_members": 10, "effective_votes": 3.0, "accuracy": accuracy, "member_accuracy": [0.7] * 10}
    tables: dict[str, tuple[str, pl.DataFrame, dict[str, Any], dict[str, Any]]] = {
        "load": ("pairs", pairs, {}, {}),
        "check": ("checks", checks, {}, check_facts(checks)),
        "vote": ("votes", pairs.select("pair_id"), {"scoring": "out-of-fold"}, votes),
        "strength": ("strength", strength, {}, {}),
        "decide": ("decisions", decide(pairs, checks, strength, load_policy("auto")), {"policy": "auto"}, {}),
    }
    run = Run(path)
    for stage, (name, table, options, facts) in tables.items():
        write_parquet(table, path / f"{name}.parquet")
        run.record(stage, options, [path / f"{name}.parquet"], len(table), facts)


def write_page(path: Path) -> dict[str, float]:
    """Write the report of a run: seconds of facts and page, CPU seconds of both, peak MiB, page size in MB."""
    from curate.run import Run
    from reports.facts import facts
    from reports.page import page, write_report

    before, cpu = time.perf_counter(), time.process_time()
    found = facts(Run.open(path))
    between = time.perf_counter()
    page(found)
    after, cpu = time.perf_counter(), time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    write_report(Run.open(path))
    size = (path / "report.html").stat().st_size / 1e6
    return {"facts": between - before, "page": after - between, "cpu": cpu, "mib": peak, "mb": size}


def opened(page: Path) -> dict[str, float]:
    """Milliseconds from the start of navigation: load event, first chart, all charts; and the console's messages."""
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    for argument in ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run", "disable-sync"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = shutil.which("chromium")
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))) as browser:
        browser.get(page.as_uri())
        WebDriverWait(browser, 60).until(lambda b: b.execute_script("return document.documentElement.dataset.charts"))
        assert browser.get_log("browser") == []
        script = """
            const load = performance.getEntriesByType("navigation")[0].loadEventEnd;
            const at = (name) => performance.getEntriesByName(name)[0].startTime;
            return { load, first: at("first chart"), all: at("all charts") };
        """
        times: dict[str, float] = browser.execute_script(script)
        return times


def itself(*arguments: str) -> str:
    """What this script prints as a process of its own; a child's peak memory begins at its parent's, so that one stays small."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="sizes of the runs")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        write_run(arguments.make, *arguments.pairs)
        return
    if arguments.measure:
        print(json.dumps(write_page(arguments.measure)))
        return
    print(
        "| pairs | facts, s | page, s | CPU, s | peak MiB | page MB | load event, s | first chart, s | all charts, s |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for n_pairs in arguments.pairs:
        with tempfile.TemporaryDirectory(prefix="report-benchmark-") as folder:
            itself("--make", folder, "--pairs", str(n_pairs))
            made = json.loads(itself("--measure", folder))
            runs = [opened(Path(folder) / "report.html") for _ in range(3)]
        times = [f"{made[name]:.1f}" for name in ("facts", "page", "cpu")]
        sizes = [f"{made['mib']:,.0f}", f"{made['mb']:.2f}"]
        opening = [f"{min(run[name] for run in runs) / 1000:.2f}" for name in ("load", "first", "all")]
        print("| " + " | ".join([f"{n_pairs:,}", *times, *sizes, *opening]) + " |", flush=True)


if __name__ == "__main__":
    main()
