import json

import pytest

from curate import options, pipeline
from curate.check_columns import check_columns
from curate.check_personal import KINDS, personal_columns
from curate.options import CheckOptions

# Numbers from the documentation of the libraries and of the formats: nobody's
REAL = {
    "email": ["Mail anna.berg@web.de!", "<a+b@sub.example-shop.co.uk>", "\u90ae\u7bb1\uff1aanna@qq.com\u3002"],
    "phone": ["Call +44 20 7946 0958.", "(212) 736-5000", "It is 212-736-5000", "\u7535\u8bdd+86 138 1380 0013"],
    "card": ["4539 1488 0343 6467", "My card is 4539148803436467.", "3714-496353-98431"],
    "account": [
        "DE89 3704 0044 0532 0130 00",
        "Send it to GB82WEST12345698765432.",
        "IBAN:DE89370400440532013000",
        '"DE89370400440532013000"',
        "IBAN DE89 3704 0044 0532 0130 00 BIC COBADEFFXXX",
    ],
    "identity": ["Mine is 536-90-4399.", "360426199101010071", "SSN:219-09-9998", "(219-09-9998)"],
}
NOT = {
    "email": ["me@example.com", "info@web.de", "git@github.com:a/b", "setup-node@v10.x", "firstName.lastName@web.de"],
    "phone": [
        "(512) 555-2994",  # of films
        "1-800-273-8255",  # a hotline
        "2018-02-07 22:14",
        "1982-1990",
        "2147483647",
        "https://a.com/220/212-736-5000",
        "192.168.100.100",
        "61035.15625",
    ],
    "card": ["4539 1488 0343 6468", "4111 1111 1111 1111", "1522680495750", "0.4539148803436467", "450580596923828125"],
    "account": ["DE89 3704 0044 0532 0130 01", "AB12 CDEF GHIJ KLMN OPQR"],
    "identity": ["000-12-3456", "078-05-1120", "360426199101010072", "12-345-6789"],
}


def kinds_of(make_pairs, text):
    table = check_columns(make_pairs(("Who?", text, "Nobody."), ("Who?", "Somebody.", "Nobody.")))
    found = personal_columns(table)
    assert not any(found.row(1))
    return [name for name, is_found in zip(KINDS, found.row(0), strict=True) if is_found]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in REAL.items() for text in texts])
def test_personal_data_are_found_by_their_kind(make_pairs, kind, text):
    assert kinds_of(make_pairs, text) == [kind]


@pytest.mark.parametrize("text", [text for texts in NOT.values() for text in texts])
def test_what_only_looks_like_it_is_not_found(make_pairs, text):
    assert kinds_of(make_pairs, text) == []


def test_it_is_looked_for_in_all_three_texts_only_if_asked(command, tmp_path):
    texts = ["Who has anna@web.de?", "Anna has anna@web.de.", "Ben: 212-736-5000"]
    rows = [{"prompt": "Who?", "chosen": "Anna.", "rejected": "Ben."} for _ in texts]
    for row, name, text in zip(rows, ("prompt", "chosen", "rejected"), texts, strict=True):
        row[name] = text
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    report = json.loads(command("check", data, "--pii", "--json")[1])
    found = next(row for row in report["found"] if row["check"] == "personal_data")
    assert (found["severity"], found["n_pairs"]) == ("warning", 3)
    assert report["personal"] == {"email": 2, "phone": 1, "card": 0, "account": 0, "identity": 0}
    assert "pairs with personal data: email 2, phone 1, card 0" in command("check", data, "--pii")[1]
    report = json.loads(command("check", data, "--json")[1])
    assert "personal" not in report
    assert "personal_data" not in {row["check"] for row in report["found"]}


def test_a_run_is_checked_again_when_personal_data_are_asked_for(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "Who?", "chosen": "anna@web.de", "rejected": "Ben."}')
    run = pipeline.check(pipeline.load(data, tmp_path / "run"))
    assert "personal_data" not in run.read("checks").columns
    pipeline.check(run, checking=CheckOptions(pii=True))
    assert run.read("checks")["personal_data"].to_list() == [True]


def test_a_missing_library_is_one_line_that_says_what_to_type(command, tmp_path, monkeypatch):
    monkeypatch.setattr(options, "find_spec", lambda name: None if name == "stdnum" else name)
    code, out, err = command("check", tmp_path / "data.jsonl", "--pii")
    assert (code, out) == (2, "")
    assert err == 'error: --pii: stdnum is not installed; type: pip install "prefcurate[pii]"\n'
