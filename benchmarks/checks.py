"""How long `curate check` takes, and how much memory, on generated short pairs: with and without near-duplicates.

    python benchmarks/checks.py --pairs 100000

Each run is a process of its own, so that its peak memory is its own. A budget of DESIGN.md's kind: 1,000,000 short pairs
in under 2 minutes and 4 GiB without near-duplicates, in under 10 minutes with them (2 cores). One pair in a hundred is a
near-duplicate of the pair before it.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEXT = """
the of and to in that it was for on are with as his they at be this from have or by one had not but what all
were when we there can an your which their said if do will each about how up out them then she many some so
these would other into has more her two like him see time could no make than first been its who now people my
made over did down only way find use may water long little very after words called just where most know river
mountain garden winter summer teacher letter window music bridge harbour engine paper table animal story
village number answer
"""
WORDS = TEXT.split()


def write_pairs(path: Path, n_pairs: int, seed: int = 0) -> None:
    """Questions of 8 words and responses of 12 and 16, as JSON lines."""
    rng = random.Random(seed)

    def sentence(n_words: int) -> str:
        return " ".join(rng.choices(WORDS, k=n_words)).capitalize()

    row: dict[str, str] = {}
    with path.open("w", encoding="utf-8") as file:
        for number in range(n_pairs):
            if number % 100 == 99:
                row = row | {"prompt": row["prompt"].replace("?", "!"), "chosen": row["chosen"].upper()}
            else:
                row = {"prompt": sentence(8) + "?", "chosen": sentence(12) + ".", "rejected": sentence(16) + "."}
            file.write(json.dumps(row) + "\n")


def measure(path: Path, near: bool) -> dict[str, float]:
    """Seconds of reading and of everything else, and the peak memory in GiB, in this process."""
    from curate.formats import ReadOptions, read_all
    from curate.options import CheckOptions, FeatureOptions
    from curate.pipeline.stages import _checked

    start, cpu = time.perf_counter(), time.process_time()
    pairs = read_all(path, ReadOptions()).pairs
    read = time.perf_counter()
    facts = _checked(pairs, None, FeatureOptions(), CheckOptions(near=near), lambda *_: None)[1]
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    n_near = facts["counts"].get("near_duplicate_pair", 0)
    return {
        "read": read - start,
        "check": done - read,
        "total": done - start,
        "cpu": time.process_time() - cpu,
        "peak": peak,
        "n_near": n_near,
    }


def main() -> None:
    """Print one row per run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--measure", nargs=2, metavar=("FILE", "NEAR"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(Path(given.measure[0]), given.measure[1] == "yes")))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.jsonl"
        write_pairs(path, given.pairs)
        print(
            "| pairs | near-duplicates | read, s | check, s | total, s | CPU, s | peak, GiB | near-duplicates found |"
        )
        print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for near in ("no", "yes"):
            arguments = [sys.executable, __file__, "--measure", str(path), near]
            done = subprocess.run(arguments, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
            row = json.loads(done.stdout)
            times = " | ".join(f"{row[name]:.1f}" for name in ("read", "check", "total", "cpu", "peak"))
            print(f"| {given.pairs:,} | {near} | {times} | {row['n_near']:,} |", flush=True)


if __name__ == "__main__":
    main()
