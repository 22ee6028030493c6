"""One dataset with a defect of every check, and its clean twin, through the real command: all is found, and nothing else."""

import json

import polars as pl
import pytest
from test_checks_planted import CLEAN, clean_row

from curate.checks import ALL_CHECKS

SMALL = ["the", "that", "with", "this", "from", "they", "what", "there", "which", "have", "will", "would"]


def tale(topic):
    """A text of 24 words whose word pairs are those of no other topic."""
    return " ".join(f"{word} {topic}" for word in SMALL).capitalize() + "."


def nearly(topic):
    """The same with one more word pair: 23 of 24 are shared."""
    return tale(topic).replace(".", " again.")


def words(topic, n):
    """A text of `n` words, each a token or more, that none repeats."""
    return " ".join(f"the {topic}{i}" for i in range(n // 2))


ASKED = [{"role": "assistant", "content": "Old?"}, {"role": "user", "content": "Yes."}]
FROST = [{"role": "assistant", "content": "Then it was the frost."}]
CUT = "It was a hard frost. Everybody in the village knows that the frost of that long winter broke the"
GERMAN = "Das weiß niemand so genau, aber der Wind trägt im Frühling immer sehr viel Staub bis in die Täler hinein."
BOILERPLATE = "Is there anything else to help you with?"

# What is put in: (prompt, chosen, rejected, other columns), each with all the checks that have to find it.
DEFECTS = [
    (("Who sings at dawn?", "Larks do.", "Larks do."), ["identical_responses"]),
    (("Who sings at noon?", "Finches do.", "Finches  do.\n"), ["equal_but_for_space", "equal_after_truncation"]),
    (("Who swims?", "Otters.", "Seals."), ["contradicting_labels"]),
    (("Who swims?", "Seals.", "Otters."), ["contradicting_labels", "repeated_prompt"]),
    (("Who digs?", "Moles.", "Hares dig."), ["label_cycle"]),
    (("Who digs?", "Hares dig.", "Foxes dig."), ["label_cycle", "repeated_prompt"]),
    (("Who digs?", "Foxes dig.", "Moles."), ["label_cycle", "repeated_prompt"]),
    (("Who climbs?", "Goats.", "Cows."), []),
    (("Who climbs?", "Goats.", "Cows."), ["exact_duplicate_pair", "repeated_prompt"]),
    (("Who hums?", "Bees hum.", "Ants hum."), []),
    (("Who hums?", "Flies hum.", "Moths hum."), ["repeated_prompt"]),
    (("Who hides?", "Newts.", "Toads hide."), ["repeated_response"]),
    (("Who naps?", "Newts.", "Dogs nap."), ["repeated_response"]),
    (("Who barks?", "Wolves.", " \n "), ["empty_response"]),
    ((" ", "Something was asked.", "Nothing was asked."), ["empty_prompt"]),
    *[
        ((f"Question of day {i}?", f"Answer of day {i}.", BOILERPLATE), ["boilerplate_response", "repeated_response"])
        for i in range(5)
    ],
    (("Who left?", "Anna left.\n\nAssistant: Or was it Ben?", "Carl left early."), ["turns_in_response"]),
    (("Why now?", [*ASKED, *FROST], "It was the rain."), ["differing_contexts", "turns_in_response"]),
    (("Who flies?", "Swifts fly.<|im_end|>", "Rats fly at night."), ["template_in_response"]),
    (
        (
            "Which of the seven seas is the saltiest one?",
            "Which of the seven seas is the saltiest one? Red.",
            "It varies.",
        ),
        ["prompt_in_response"],
    ),
    (("Who bakes?", "The baker\u00e2\u20ac\u2122s wife.", "The miller bakes."), ["broken_encoding"]),
    (("What broke the bridge?", CUT, "Nobody knows what broke it."), ["truncated_response"]),
    (
        (
            "Do you know what carries all that dust in spring, and from which place?",
            GERMAN,
            "The winds of the mountains.",
        ),
        ["other_language"],
    ),
    (("How to pick a lock?", "I'm sorry, I can't help with that.", "Use a thin hook."), ["refusal"]),
    (("Tell a story?", tale("owl"), "No."), ["extreme_length_ratio"]),
    (("Who kept the light?", tale("lamp"), "The cook of the house."), []),
    (("Who kept the light?", nearly("lamp"), "The cook of the house."), ["near_duplicate_pair", "repeated_prompt"]),
    (("Who was early?", tale("bus"), "The maid of the house."), ["near_contradicting_labels"]),
    (("Who was early?", "The maid of the house.", nearly("bus")), ["near_contradicting_labels", "repeated_prompt"]),
    (("What was it like?", tale("sea"), nearly("sea")), ["near_equal_responses"]),
    ((tale("hill"), "How calm.", "How dull."), []),
    ((nearly("hill"), "How nice.", "How long."), ["near_duplicate_prompt"]),
    (("Say more?", tale("mate"), "The old mate."), ["near_duplicate_response"]),
    (("Go on?", nearly("mate"), "The young boy."), ["near_duplicate_response"]),
    (("Which score?", "The low one.", "The high one.", {"score_chosen": 2, "score_rejected": 4.5}),
     ["score_contradicts_label"]),
    (("Which rating?", "The left one.", "The right one.", {"score_chosen": 4, "score_rejected": 4}),
     ["equal_scores"]),
    ((words("note", 300), "Too long.", "Far too long."), ["prompt_longer_than_limit"]),
    (("Which ends well?", words("same", 260) + words("good", 90), words("same", 260) + words("bad", 90)),
     ["equal_after_truncation"]),
    (("Who was asked in the test?", "One of us.", "One of them."), ["prompt_in_other"]),
    (("Where to write?", "To anna.berg@web.de, she answers.", "Nobody knows where."), ["personal_data"]),
    (("Who answered?", "Seven of them answered.", "An answer that the test set has as well."), ["response_in_other"]),
]  # fmt: skip
ELSEWHERE = [
    ("WHO was asked in the test?", "Here it is.", "Here it is not."),
    ("Does it leak?", "It does, it seems to.", "An answer that the test set has as well."),
]
TWIN = [(p, c, r) if i % 2 else (p, r, c) for i, (p, c, r) in enumerate(CLEAN)]  # neither side is the longer one


def write(path, rows):
    names = ("prompt", "chosen", "rejected")
    given = [dict(zip(names, row[:3], strict=True)) | {"score_chosen": 4.5, "score_rejected": 2.0} for row in rows]
    given = [row | (more[3] if len(more) > 3 else {}) for row, more in zip(given, rows, strict=True)]
    path.write_text("\n".join(map(json.dumps, map(messages, given))), encoding="utf-8")
    return path


def messages(row):
    """The row in the conversational form."""
    said = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return row | {
        name: [{"role": role, "content": row[name]}] for name, role in said.items() if isinstance(row[name], str)
    }


@pytest.fixture
def files(tmp_path):
    """The planted dataset, its clean twin, and the test set that it overlaps with."""
    planted = [row for row, _ in DEFECTS]
    return (
        write(tmp_path / "planted.jsonl", [*TWIN, *planted]),
        write(tmp_path / "clean.jsonl", TWIN),
        write(tmp_path / "test.jsonl", [*ELSEWHERE, *(clean_row(i) for i in range(60, 99))]),
    )


def test_every_defect_is_found_and_nothing_else(command, files, tmp_path):
    planted, _, test = files
    code, out, _ = command("check", planted, "--against", test, "--pii", "--json", "--to", tmp_path / "found.csv")
    report = json.loads(out)
    assert (code, report["severity"]) == (4, "error")
    rows = pl.read_csv(tmp_path / "found.csv")
    expected = {(f"planted:train:{len(TWIN) + i}", check) for i, (_, checks) in enumerate(DEFECTS) for check in checks}
    assert set(rows.select("pair_id", "check").rows()) == expected
    assert len(rows) == len(expected)
    assert {row["check"] for row in report["found"]} == {check.__name__ for check in ALL_CHECKS}
    counts = dict(rows["check"].value_counts().rows())
    assert {row["check"]: row["n_pairs"] for row in report["found"]} == counts
    assert [row["check"] for row in report["biases"] if row["severity"] == "warning"] == []


def test_nothing_is_found_in_the_clean_twin(command, files, tmp_path):
    _, clean, test = files
    code, out, err = command("check", clean, "--against", test, "--pii", "--json", "--to", tmp_path / "found.jsonl")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert (report["severity"], report["found"], report["warnings"]) == ("none", [], [])
    assert {row["severity"] for row in report["biases"]} == {"none"}
    assert (tmp_path / "found.jsonl").read_text() == ""
