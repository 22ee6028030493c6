"""What changed between two runs, on tables that can be recounted, as properties, and through the real commands."""

import json
import shutil
from collections import Counter

import polars as pl
import pytest
from fake_run import HOSTILE, fake_run
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import pipeline
from curate.demo import TOPICS, sample
from curate.diff import diff, spearman
from curate.diff_side import COMPARED, Side, read_side
from curate.diff_words import votes_words
from curate.match import pair_keys
from curate.run import Run, sha256_of, write_json
from curate.terminal_diff import show_diff

STAGES = ("load", *COMPARED)


def side_of(pairs: pl.DataFrame, name="x", facts=None, options=None, **tables) -> Side:
    """A side whose stages are the tables given, in the order of `pairs`; the vote has run where there are strengths."""
    tables = {stage: table.insert_column(0, pairs["pair_id"]) for stage, table in tables.items()}
    done = {*tables, "load", *(["vote"] if "strength" in tables else [])}
    records = {
        stage: {"options": (options or {}).get(stage, {}), "facts": (facts or {}).get(stage, {})} for stage in done
    }
    missing = {stage: "has not run" for stage in COMPARED if stage not in done}
    return Side(name, pair_keys(pairs.lazy()), tables, {"stages": records}, missing)


def strengths(mean, label_prob=None, kind=None) -> pl.DataFrame:
    n = len(mean)
    ranks = pl.Series(mean).rank("ordinal").cast(pl.Float64) - 1
    return pl.DataFrame(
        {
            "strength_mean": mean,
            "strength_rank": ranks / max(n - 1, 1),
            "label_prob": pl.Series(label_prob or [None] * n, dtype=pl.Float64),
            "kind": kind or ["normal"] * n,
        }
    )


def decided(*actions) -> pl.DataFrame:
    return pl.DataFrame({"action": actions, "reason": ["because"] * len(actions)})


def changes(found) -> dict[str, int]:
    return {name: n for name, n in found.facts["data"]["changes"].items() if n}


A = [
    ("q1", "a", "b"),
    ("q2", "a", "b"),
    ("q3", "a", "b"),
    ("q4", "a response of some length", "d"),
    ("q5", "a", "b"),
    ("q6", "a", "b"),
]
B = [
    ("q6", "a", "b"),
    ("q1", "a", "b"),
    ("q2", "b", "a"),
    ("q3", "a", "mended"),
    ("q4?", "a response of some length", "d"),
    ("new", "e", "f"),
]


@pytest.fixture
def found(make_pairs):
    """A and B differ in one pair of each change; the last of A, the first of B, has become a tie."""
    return diff(side_of(make_pairs(*A)), side_of(make_pairs(*B, label_strength=[0.5] + [None] * 5)))


def test_each_change_is_counted(found):
    assert changes(found) == {
        "only in A": 1,
        "only in B": 1,
        "label swapped": 1,
        "became a tie": 1,
        "response edited": 1,
        "prompt edited": 1,
    }
    data = found.facts["data"]
    assert (data["n_a"], data["n_b"], data["n_both"], data["n_changed"]) == (6, 6, 5, 6)
    assert found.facts["headline"] == "6 pairs of the data changed."
    assert found.facts["is_changed"] == {"data": True, "audits": False, "settings": False}


def test_each_changed_pair_is_one_row(found):
    rows = found.changed.select("pair_id_a", "pair_id_b", "change").rows()
    assert rows == [
        ("toy:train:1", "toy:train:2", "label swapped"),
        ("toy:train:2", "toy:train:3", "response edited"),
        ("toy:train:3", "toy:train:4", "prompt edited"),
        ("toy:train:4", None, "only in A"),
        ("toy:train:5", "toy:train:0", "became a tie"),
        (None, "toy:train:5", "only in B"),
    ]
    assert found.facts["n_changed_pairs"] == len(rows)


def test_stages_that_no_run_has_are_named(found):
    assert len(found.facts["not_compared"]) == 2 * len(COMPARED)
    assert "The checks are not compared: stage check has not run in A." in found.facts["sentences"]
    for part in ("checks", "strength", "actions", "kinds", "swapped"):
        assert part not in found.facts


def test_a_tie_has_no_direction(make_pairs):
    tie, turned = make_pairs(("q", "a", "b"), label_strength=[0.5]), make_pairs(("q", "b", "a"), label_strength=[0.5])
    assert changes(diff(side_of(tie), side_of(turned))) == {}
    assert changes(diff(side_of(tie), side_of(make_pairs(("q", "b", "a"))))) == {"no longer a tie": 1}


@pytest.mark.parametrize(("before", "after", "n"), [(0.8, 0.8, 0), (0.8, 0.9, 1), (None, 0.9, 1), (None, None, 0)])
def test_a_label_can_change_its_strength_alone(make_pairs, before, after, n):
    sides = [side_of(make_pairs(("q", "a", "b"), label_strength=[value])) for value in (before, after)]
    assert changes(diff(*sides)) == ({"label strength changed": n} if n else {})


def test_a_pair_can_change_in_several_ways(make_pairs):
    a, b = make_pairs(("q", "a", "b")), make_pairs(("q", "x", "a"), is_heldout=[True])
    assert diff(side_of(a), side_of(b)).changed["change"].to_list() == [
        "label swapped, response edited, moved into held-out"
    ]


def test_held_out_moves_are_told_but_are_no_change_of_the_data(make_pairs):
    a, b = make_pairs(*A, is_heldout=[True] + [False] * 5), make_pairs(*A, is_heldout=[False] * 5 + [True])
    found = diff(side_of(a), side_of(b))
    assert changes(found) == {"moved into held-out": 1, "moved out of held-out": 1}
    assert found.facts["is_changed"] == {"data": False, "audits": True, "settings": False}


def test_sources_are_counted_where_there_are_several(make_pairs):
    a, b = make_pairs(*A, source=["x", "x", "y", "y", "y", "x"]), make_pairs(*B, source=["x", "x", "x", "z", "y", "y"])
    assert diff(side_of(a), side_of(b)).facts["data"]["sources"] == [
        {"name": "x", "n_a": 3, "n_b": 3, "n_only_a": 0, "n_only_b": 0, "n_changed": 1},
        {"name": "y", "n_a": 3, "n_b": 2, "n_only_a": 1, "n_only_b": 1, "n_changed": 2},
        {"name": "z", "n_a": 0, "n_b": 1, "n_only_a": 0, "n_only_b": 0, "n_changed": 1},  # q3 has come from y
    ]
    assert "sources" not in diff(side_of(make_pairs(*A)), side_of(make_pairs(*B))).facts["data"]


def test_nothing_in_common_is_said(make_pairs):
    found = diff(side_of(make_pairs(("q", "a", "b"))), side_of(make_pairs(("r", "c", "d"))))
    assert found.facts["headline"] == "The two runs have no pair in common."


def test_a_run_without_pairs_can_be_compared(make_pairs):
    empty = make_pairs(*A).clear()
    assert changes(diff(side_of(empty), side_of(make_pairs(*A)))) == {"only in B": 6}
    assert diff(side_of(empty), side_of(empty)).facts["headline"] == "Nothing changed."


def test_checks_are_compared_on_the_pairs_in_both(make_pairs):
    in_a = pl.DataFrame({"refusal": [True, True, False, False, True, False], "echo": [True] * 6})
    in_b = pl.DataFrame({"refusal": [True, False, True, False, False, True], "empty": [False] * 6})
    a, b = side_of(make_pairs(*A), check=in_a), side_of(make_pairs(*B), check=in_b)
    refusal, echo, empty = diff(a, b).facts["checks"]
    # q1: found, not; q2: found, found; q3, q4: not, not; q5 (found) is only in A; q6: not, found; new (found) only in B
    assert {name: refusal[name] for name in ("n_a", "n_b", "n_new", "n_gone")} == {
        "n_a": 3, "n_b": 3, "n_new": 1, "n_gone": 1,
    }  # fmt: skip
    assert refusal["severity"] == "note" and refusal["meaning"] == "A response declines to answer."
    assert (echo["n_a"], echo["n_b"], echo["n_new"]) == (6, None, None)
    assert (empty["n_a"], empty["n_b"], empty["severity"]) == (None, 0, None)


@pytest.fixture
def audited(make_pairs):
    """Two audits of four pairs; the label of the second is swapped in B, and its votes prefer the same response as before."""
    rows = [("q1", "a", "b"), ("q2", "a", "b"), ("q3", "a", "b"), ("q4", "a", "b")]
    a = side_of(
        make_pairs(*rows),
        strength=strengths([1.0, -2.0, 0.5, 3.0], [0.9, 0.2, 0.6, 0.95], ["easy", "wrong", "normal", "easy"]),
        decide=decided("keep", "drop", "keep", "keep"),
        options={"vote": {"scoring": "out-of-fold"}},
        facts={"vote": {"n_members": 5, "accuracy": {"value": 0.75, "low": 0.5, "high": 1.0}}},
    )
    b = side_of(
        make_pairs(rows[0], ("q2", "b", "a"), *rows[2:]),
        strength=strengths([1.5, 2.5, -0.5, 4.0], [0.9, 0.9, 0.4, 0.96], ["easy", "easy", "wrong", "easy"]),
        decide=decided("keep", "keep", "smooth", "keep"),
        options={"vote": {"scoring": "out-of-fold", "seed": 1}},
        facts={"vote": {"n_members": 2}},
    )
    return diff(a, b)


def test_a_swapped_label_turns_the_strength_of_b(audited):
    strength = audited.facts["strength"]
    # for A's label the strengths of B are 1.5, -2.5, -0.5, 4: the same order as in A, and one has changed its sign
    assert (strength["n_pairs"], strength["n_equal"], strength["n_sign_changes"]) == (4, 0, 1)
    assert strength["spearman"] == pytest.approx(1.0)
    assert (strength["n_with_prob"], strength["n_fell"], strength["n_rose"]) == (3, 1, 0)
    assert audited.facts["swapped"] == {"n_pairs": 1, "n_suspected_a": 1, "n_suspected_b": 0}


def test_transitions_have_a_in_rows_and_b_in_columns(audited):
    actions = audited.facts["actions"]
    assert actions["names"] == ["keep", "smooth", "flip", "drop"]
    assert actions["counts"] == [[2, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert (actions["n_pairs"], actions["n_changed"]) == (4, 2)
    kinds = audited.facts["kinds"]
    assert sum(map(sum, kinds["counts"])) == 4 and kinds["n_changed"] == 2
    assert audited.facts["headline"] == "1 pair of the data changed, and 2 of 4 decisions on the pairs in both."


def test_the_most_changed_pairs_have_the_same_label(audited):
    most = [(row["pair_id_a"], round(row["shift"], 3)) for row in audited.facts["most_changed"]]
    assert most == [("toy:train:2", -0.2), ("toy:train:3", 0.01)]  # q1 has not moved, q2 has another label
    assert audited.changed["change"].to_list() == ["label swapped, action changed", "action changed"]


def test_the_votes_of_both_are_compared_on_the_same_pairs(audited):
    votes = audited.facts["votes"]
    assert votes["a"]["accuracy"]["value"] == 0.75 and "accuracy" not in votes["b"]
    assert votes["difference"]["value"] == pytest.approx(-1 / 3)  # q3 of q1, q3, q4
    assert votes["difference"]["n_pairs"] == 3
    assert audited.facts["settings"] == [{"stage": "vote", "option": "seed", "a": None, "b": 1}]


def test_another_label_prob_of_the_same_votes_is_a_change_and_is_said(make_pairs):
    pairs = make_pairs(*A[:3])
    a = side_of(pairs, strength=strengths([1.0, -2.0, 0.5], [0.9, 0.4, 0.6]))
    b = side_of(pairs, strength=strengths([1.0, -2.0, 0.5], [0.9, 0.7, 0.7]))
    facts = diff(a, b).facts
    assert facts["is_changed"] == {"data": False, "audits": True, "settings": False}
    assert facts["headline"] == "The data is the same; the audits are not."
    assert facts["sentences"][1:3] == [
        "The votes on the 3 pairs in both are the same.",
        "Of 3 labels that are the same in both, 2 have another label_prob: 0 became more likely wrong than right, "
        "1 more likely right than wrong.",
    ]


def test_a_label_prob_that_only_one_audit_knows_is_a_change(make_pairs):
    pairs = make_pairs(*A[:2])
    sides = [side_of(pairs, strength=strengths([1.0, 2.0], label_prob)) for label_prob in (None, [0.8, 0.9])]
    assert diff(*sides).facts["is_changed"]["audits"]


@pytest.mark.parametrize(
    ("n_groups", "low", "said"),
    [
        (20, 1.0, "+1.0 to +9.0)."),
        (20, -1.0, ", so no clear difference."),
        (1, 1.0, ", 1 prompt only, so the interval is too"),
    ],
)
def test_an_interval_of_few_prompts_is_said_to_be_too_narrow(n_groups, low, said):
    difference = {"value": 0.05, "low": low / 100, "high": 0.09, "n_pairs": 40, "n_groups": n_groups}
    (sentence,) = votes_words(difference)
    assert said in sentence and ("too narrow" in sentence) == (n_groups < 20)


def test_votes_that_had_seen_the_labels_have_no_accuracy(make_pairs):
    facts = {"vote": {"n_members": 2, "accuracy": {"value": 0.9, "low": 0.8, "high": 1.0}}}
    sides = [
        side_of(make_pairs(*A), strength=strengths([1.0] * 6), facts=facts, options={"vote": {"scoring": scoring}})
        for scoring in ("in-sample", "out-of-fold")
    ]
    votes = diff(*sides).facts["votes"]
    assert "accuracy" not in votes["a"] and votes["b"]["accuracy"]["value"] == 0.9
    assert votes["difference"] is None


def test_without_label_prob_the_rank_tells_what_has_moved_most(make_pairs):
    a = side_of(make_pairs(*A[:3]), strength=strengths([1.0, 2.0, 3.0]))
    b = side_of(make_pairs(*A[:3]), strength=strengths([3.5, 2.0, 3.0]))
    assert [row["shift"] for row in diff(a, b).facts["most_changed"]] == [1.0, -0.5, -0.5]


def test_spearman_of_what_does_not_vary_is_none():
    assert spearman(pl.Series([1.0, 1.0]), pl.Series([1.0, 2.0])) is None
    assert spearman(pl.Series([1.0, 2.0, 2.0]), pl.Series([3.0, 2.0, 2.0])) == pytest.approx(-1.0)


few = settings(max_examples=20)  # each compares whole tables, twice
texts = st.sampled_from(["a", "b", "cc"])
rows = st.lists(
    st.tuples(st.sampled_from(["q", "r"]), texts, texts, st.sampled_from([None, 0.5, 0.8]), st.booleans()), max_size=6
)


def keyed(drawn) -> Side:
    """A side of drawn rows; its pair ids say what is in them, so that changes can be compared by content."""
    from curate.pairs import PAIR_SCHEMA

    def said(text):
        return [{"role": "user", "content": text}]

    pairs = [
        {
            "pair_id": repr(row),
            "prompt": said(row[0]),
            "chosen": said(row[1]),
            "rejected": said(row[2]),
            "group": row[0],
            "label_strength": row[3],
            "is_heldout": row[4],
            "source": "drawn",
        }
        for row in drawn
    ]
    return side_of(pl.DataFrame(pairs, schema=PAIR_SCHEMA))


MIRRORED = {
    "only in A": "only in B",
    "became a tie": "no longer a tie",
    "moved into held-out": "moved out of held-out",
}
MIRRORED |= {after: before for before, after in MIRRORED.items()}


def contents(found, mirrored=False) -> Counter:
    """The changed pairs by content, each with the set of its changes; mirrored with A and B exchanged."""
    ids = ("pair_id_b", "pair_id_a") if mirrored else ("pair_id_a", "pair_id_b")
    names = MIRRORED if mirrored else {}
    rows = found.changed.select(*ids, "change").iter_rows()
    return Counter((a, b, frozenset(names.get(name, name) for name in change.split(", "))) for a, b, change in rows)


@few
@given(rows)
def test_a_run_does_not_differ_from_itself(drawn):
    found = diff(keyed(drawn), keyed(drawn))
    assert found.changed.is_empty() and not any(found.facts["is_changed"].values())
    assert found.facts["headline"] == "Nothing changed."


@few
@given(rows, rows)
def test_exchanging_the_runs_exchanges_the_sides(a, b):
    there, back = diff(keyed(a), keyed(b)), diff(keyed(b), keyed(a))
    assert contents(there) == contents(back, mirrored=True)


@few
@given(rows, rows, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(a, b, random):
    found = diff(keyed(a), keyed(b))
    random.shuffle(a)
    random.shuffle(b)
    assert contents(diff(keyed(a), keyed(b))) == contents(found)


@few
@given(rows, rows)
def test_every_pair_is_accounted_for_once(a, b):
    found = diff(keyed(a), keyed(b))
    for side, drawn in (("a", a), ("b", b)):
        assert sorted(found.pairs[f"row_{side}"].drop_nulls()) == list(range(len(drawn)))
    data = found.facts["data"]
    assert data["n_both"] + data["changes"]["only in A"] == data["n_a"] == len(a)
    assert data["n_both"] + data["changes"]["only in B"] == data["n_b"] == len(b)


@pytest.fixture(scope="module")
def versions(tmp_path_factory) -> dict[str, Run]:
    """80 generated pairs audited with two members, the same with another seed, and a shuffled and edited version of them."""
    folder = tmp_path_factory.mktemp("diff")
    first = sample(80, 0.1, 0, TOPICS[:12])[0]
    first.write_ndjson(folder / "first.jsonl")
    edited = first.to_dicts()
    edited[3]["chosen"], edited[3]["rejected"] = edited[3]["rejected"], edited[3]["chosen"]
    edited[5]["chosen"] += " (mended)"
    edited[7]["prompt"] += " Please."
    second = [
        *edited[20:78],
        {"prompt": "=1+1?", "chosen": "2", "rejected": "=2"},
        *edited[:20],
    ]  # the last two are gone
    (folder / "second.jsonl").write_text("".join(json.dumps(row) + "\n" for row in second))
    first_run = pipeline.audit(folder / "first.jsonl", folder / "a", members=2)
    shutil.copytree(first_run.path, folder / "seed")  # with its features, so that only the votes are cast again
    return {
        "a": first_run,
        "seed": pipeline.audit(folder / "first.jsonl", folder / "seed", members=2, seed=1),
        "b": pipeline.audit(folder / "second.jsonl", folder / "b", members=2),
    }


def test_the_command_finds_what_was_edited(versions, command, tmp_path):
    files = {run.path: {file.name: sha256_of(file) for file in run.path.glob("*.*")} for run in versions.values()}
    code, out, _ = command("diff", versions["a"].path, versions["b"].path, "--to", tmp_path / "changed.csv")
    assert code == 0
    assert f"changed pairs: {tmp_path / 'changed.csv'}" in out
    for words in (
        "A: a   B: b",
        "78 pairs are in both, of 80 in A and 79 in B.",
        "2 pairs are only in A, 1 pair is only in B, 1 label was swapped, 1 pair has an edited response",
        "1 pair has an edited prompt",
    ):
        assert words in out
    rows = pl.read_csv(tmp_path / "changed.csv")
    by_change = {row["change"]: row for row in rows.iter_rows(named=True) if "action" not in row["change"]}
    swapped = rows.filter(pl.col("change").str.contains("label swapped"))
    assert swapped.select("pair_id_a", "pair_id_b").rows() == [("first:train:3", "second:train:62")]
    assert by_change["only in B"]["pair_id_b"] == "second:train:58"
    assert set(rows["pair_id_a"].to_list()) >= {"first:train:78", "first:train:79", "first:train:5", "first:train:7"}
    assert files == {path: {file.name: sha256_of(file) for file in path.glob("*.*")} for path in files}


def test_json_says_whether_anything_changed(versions, command):
    code, out, _ = command("diff", versions["a"].path, versions["a"].path, "--json")
    facts = json.loads(out)
    assert (code, facts["is_changed"]) == (0, {"data": False, "audits": False, "settings": False})
    assert facts["headline"] == "Nothing changed." and facts["n_changed_pairs"] == 0
    code, out, _ = command("diff", versions["a"].path, versions["seed"].path, "--json")
    facts = json.loads(out)
    assert (code, facts["is_changed"]) == (0, {"data": False, "audits": True, "settings": True})
    assert {"stage": "vote", "option": "seed", "a": 0, "b": 1} in facts["settings"]
    assert facts["not_compared"] == []
    assert facts == json.loads(json.dumps(versions["a"].diff(versions["seed"]).facts))


def test_the_same_run_twice_says_that_nothing_changed(versions, command):
    code, out, err = command("diff", versions["a"].path, versions["a"].path)
    assert (code, err) == (0, "")
    assert "Nothing changed." in out and "The votes on the 80 pairs in both are the same." in out


@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_the_changed_pairs_can_be_read_back(versions, command, tmp_path, kind):
    path = tmp_path / f"changed{kind}"
    code, out, err = command("diff", versions["a"].path, versions["b"].path, "--to", path, "--json")
    assert (code, err) == (0, "")
    rows = pl.read_parquet(path) if kind == ".parquet" else pl.read_ndjson(path)
    assert len(rows) == json.loads(out)["n_changed_pairs"]
    assert rows["change"].str.len_chars().min() > 0


def test_the_steps_of_a_comparison_are_told(tmp_path):
    runs = [fake_run(tmp_path / name, stages=("load",)) for name in ("x", "y")]
    told = []
    pipeline.diff(*runs, progress=lambda *step: told.append(step))
    assert told == [("compare runs", n, 3) for n in (1, 2, 3)]


def test_a_csv_holds_no_formula(make_pairs, command, tmp_path, monkeypatch):
    a, b = make_pairs(*A[:1], pair_id=["=1+1"], source=["=1+1"]), make_pairs(*A[1:2])
    monkeypatch.setattr(pipeline, "diff", lambda *_: diff(side_of(a), side_of(b)))
    for name in ("x", "y"):
        fake_run(tmp_path / name, stages=("load",))
    code, _, _ = command("diff", tmp_path / "x", tmp_path / "y", "--to", tmp_path / "c.csv")
    assert code == 0
    assert pl.read_csv(tmp_path / "c.csv")["pair_id_a"].to_list()[0] == "'=1+1"


def test_what_cannot_be_compared_is_refused(versions, command, tmp_path):
    run = versions["a"].path
    (tmp_path / "old.csv").write_text("mine")
    for arguments, message in (
        ((run, tmp_path / "none"), "not a run folder (no run.json)"),
        ((tmp_path / "none", run), "not a run folder (no run.json)"),
        ((run, run, "--to", tmp_path / "x.txt"), "kind of file in --to"),
        ((run, run, "--html", tmp_path / "x.txt"), "kind of file in --html"),
        ((run, run, "--html", run / "x.html"), "is inside the run folder; choose another --html"),
        ((run, run, "--to", tmp_path / "old.csv"), "exists; choose another --to, or add --overwrite"),
    ):
        code, out, err = command("diff", *arguments)
        assert (code, out) == (2, "") and message in err, err
    assert (tmp_path / "old.csv").read_text() == "mine"
    fake_run(tmp_path / "early", stages=()).update(versions={})
    code, _, err = command("diff", tmp_path / "early", run)
    assert code == 2 and "stage load has not run; run first: curate load DATA --out" in err


def test_missing_and_stale_stages_are_said(versions, command, tmp_path):
    shutil.copytree(versions["a"].path, tmp_path / "stale")
    stale = Run(tmp_path / "stale")
    stages = dict(stale.manifest["stages"])
    stages["vote"] = {**stages["vote"], "key": "another"}  # voted again, and the strength not yet
    del stages["decide"]
    stale.update(stages=stages)
    code, out, _ = command("diff", versions["a"].path, stale.path)
    assert code == 0
    for stage, what, why in (
        ("vote", "votes", "is stale"), ("strength", "strengths", "is stale"), ("decide", "decisions", "has not run"),
    ):  # fmt: skip
        assert f"The {what} are not compared: stage {stage} {why} in B." in out
    assert "The checks" not in out


def test_a_run_of_an_older_version_is_compared(versions, tmp_path):
    shutil.copytree(versions["a"].path, tmp_path / "old")
    old = Run(tmp_path / "old")
    old.update(versions={**old.manifest["versions"], "prefcurate": "0.0.1"})
    for name, record in old.manifest["stages"].items():
        key = old.key(name, record["options"], made_by="0.0.1")
        stages = {**old.manifest["stages"], name: {**record, "key": key}}
        write_json({**old.manifest, "stages": stages}, old.manifest_path)
    facts = versions["a"].diff(old).facts
    assert facts["not_compared"] == [] and "0.0.1" in [row["b"] for row in facts["settings"]]
    assert facts["headline"] == "Nothing changed but the settings."


def test_two_runs_of_one_name_are_told_apart(versions, command, tmp_path):
    for parent in ("old", "new"):
        shutil.copytree(versions["a"].path, tmp_path / parent / "run")
    _, out, _ = command("diff", tmp_path / "old" / "run", tmp_path / "new" / "run", "--json")
    assert json.loads(out)["runs"] == {"a": "old/run", "b": "new/run"}


def test_hostile_texts_cannot_steer_the_terminal(make_pairs, capsys):
    evil = "\x1b[31m" + HOSTILE[3] + "[bold]"
    a = side_of(
        make_pairs(*A, pair_id=[evil] * 6, source=[evil] * 3 + ["x"] * 3), name=evil, options={"load": {evil: evil}}
    )
    b = side_of(make_pairs(*B), name="b", strength=strengths([1.0] * 6))
    show_diff(diff(a, b).facts)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\u202e" not in out
    assert "\\x1b[31m" in out and "[bold]" in out


def test_reading_a_run_needs_no_texts_in_memory(versions):
    columns = read_side(versions["a"], "a").pairs.columns
    assert not {"prompt", "chosen", "rejected", "extra"} & set(columns)
