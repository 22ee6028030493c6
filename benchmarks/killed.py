"""Does an ensemble that is killed again and again end with the votes of one that ran through? The real command, kill -9.

    python benchmarks/killed.py --to runs/killed

A generated sample of pairs goes through `curate load` and `curate vote --ensemble full`, once without a stop and once killed at
ten random points, each time started again by the same command.
"""

import argparse
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from curate.demo import TOPICS, sample
from curate.run import sha256_of

CURATE = str(Path(sys.executable).with_name("curate"))


def command(run: Path, options: argparse.Namespace) -> list[str]:
    """The command that votes."""
    given = [f"--{name}={getattr(options, name.replace('-', '_'))}" for name in ("ensemble", "members", "max-tokens")]
    return [CURATE, "vote", str(run), *given]


def loaded(data: Path, run: Path) -> Path:
    """A fresh run folder of the sample."""
    subprocess.run([CURATE, "load", str(data), "--out", str(run), "--overwrite"], check=True, stdout=subprocess.DEVNULL)
    return run


def votes(run: Path) -> dict[str, str]:
    """What the votes files hash to."""
    return {path.name: sha256_of(path) for path in sorted((run / "votes").glob("member-*.parquet"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path("runs/killed"), help="folder for the runs")
    parser.add_argument("--ensemble", default="full", help="lora or full")
    parser.add_argument("--pairs", type=int, default=400, help="pairs of the generated sample")
    parser.add_argument("--members", type=int, default=2, help="members of two folds")
    parser.add_argument("--max-tokens", type=int, default=64, help="tokens of a text")
    parser.add_argument("--kills", type=int, default=10, help="how often")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    data = options.to / "sample.jsonl"
    sample(options.pairs, 0.1, 0, TOPICS)[0].write_ndjson(data)
    whole = loaded(data, options.to / "whole")
    start = time.perf_counter()
    subprocess.run(command(whole, options), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    killed = loaded(data, options.to / "killed")
    draws, n_killed = random.Random(options.seed), 0
    while n_killed < options.kills:
        process = subprocess.Popen(command(killed, options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=draws.uniform(0.1, 0.3) * seconds)
            break  # it was done before its time
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            n_killed += 1
    subprocess.run(command(killed, options), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    same = votes(whole) == votes(killed)
    print(
        f"{options.ensemble}: {len(votes(whole))} members, {seconds:.0f} s without a stop, killed {n_killed} times: ",
        end="",
    )
    print("the same votes, byte for byte" if same else "OTHER VOTES")
    raise SystemExit(0 if same and n_killed == options.kills else 1)


if __name__ == "__main__":
    main()
