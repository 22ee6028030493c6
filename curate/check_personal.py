"""Personal data: e-mail addresses, and numbers that lead to a person as `phonenumbers` and `python-stdnum` judge them.

Patterns propose, and only what they propose reaches the libraries. benchmarks/results/checks.md tells what was read by hand.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import polars as pl

from curate.check_columns import SIDES
from curate.run import Progress, no_progress

BEFORE = r"(?:^|[^A-Za-z0-9_.,/=+\-])"  # a number does not begin within another, a fraction, a path or a query
# Addresses of no person: RFC 2606, programs, offices, and what is written where yours belongs
NOBODY = re.compile(
    r"@(\w+\.)*example\.(com|net|org)$|^(git|info|help|support|contact|admin|sales|no-?reply|example|test|user(name)?"
    r"|(your[._]?)?e?mail|first_?name\.last_?name)@",
    re.IGNORECASE,
)
FICTION = 555  # the exchange of telephone numbers in films
CARDS = re.compile(r"4(\d{12}|\d{15})|(5[1-5]|2[2-7])\d{14}|3[47]\d{13}|6(011|5\d\d)\d{12}")
FEWEST_DIGITS = 4  # different ones: 4111 1111 1111 1111 and its like are for tests


def personal_data() -> pl.Expr:
    """A text holds an e-mail address, or a phone, card, account or identity number.

    warning: put a made-up one in its place before a model learns it
    """
    return pl.any_horizontal(*(f"has_{kind}" for kind in KINDS))


PERSONAL_CHECKS = (personal_data,)


def is_email(found: str) -> bool:
    """True for an address that can be a person's.

    >>> is_email("anna.berg@web.de"), is_email("anna.berg@example.com"), is_email("info@web.de")
    (True, False, False)
    """
    return not NOBODY.search(found)


def is_phone(found: str) -> bool:
    """True for a number in the usual groups that reaches a person: no hotline, no 555 of films.

    Without a country's code it is read as one of North America.
    """
    from phonenumbers import Leniency, PhoneNumberMatcher, number_type

    numbers = [match.number for match in PhoneNumberMatcher(found, "US", leniency=Leniency.STRICT_GROUPING)]
    return any(number_type(number) in person_types() and not is_fiction(number) for number in numbers)


@cache
def person_types() -> frozenset[int]:
    """The types of numbers that can be a person's, as `phonenumbers` counts them."""
    from phonenumbers import PhoneNumberType as Type

    return frozenset({Type.FIXED_LINE, Type.MOBILE, Type.FIXED_LINE_OR_MOBILE, Type.PERSONAL_NUMBER, Type.VOIP})


def is_fiction(number: Any) -> bool:
    """True for a North American number whose exchange is 555."""
    return bool(number.country_code == 1 and number.national_number // 10_000 % 1000 == FICTION)


def is_card(found: str) -> bool:
    """True for a card's number: length and first digits of an issuer, and the right check digit."""
    from stdnum import luhn

    number = digits(found)
    return bool(CARDS.fullmatch(number)) and len(set(number)) >= FEWEST_DIGITS and bool(luhn.is_valid(number))


def is_account(found: str) -> bool:
    """True for an IBAN of a country's length with the right check digits, whatever words in capitals follow it."""
    from stdnum import iban

    groups = bare(found).split(" ")
    return any(iban.is_valid("".join(groups[:end])) for end in range(1, len(groups) + 1))


def is_identity(found: str) -> bool:
    """True for a social security number of the USA or a resident's number of China that can have been given."""
    from stdnum.cn import ric
    from stdnum.us import ssn

    number = bare(found)
    return bool(ssn.is_valid(number) if "-" in number else ric.is_valid(number))


def bare(found: str) -> str:
    """A number without the character that `BEFORE` takes in front of it.

    >>> bare("(219-09-9998"), bare("219-09-9998")
    ('219-09-9998', '219-09-9998')
    """
    return re.sub("^[^A-Za-z0-9]", "", found)


def digits(found: str) -> str:
    """The digits of a number.

    >>> digits(" 4539 1488-03")
    '4539148803'
    """
    return "".join(filter(str.isdecimal, found))


# What proposes such data, and what says whether it is
KINDS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "email": (r"[\w.+%\-]+@(?:[A-Za-z0-9\-]+\.)+[A-Za-z]{2,}\b", is_email),
    "phone": (
        BEFORE + r"(?:\+\d|\(\d{3}\) ?\d|\d{3}[ .\-]\d{3}[ .\-]\d|1[ .\-]\d{3}[ .\-])[\d ().\-]{2,16}\d",
        is_phone,
    ),
    "card": (BEFORE + r"\d{4}(?:[ \-]?\d{4,6}){2}[ \-]?\d{1,5}\b", is_card),
    "account": (BEFORE + r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", is_account),
    "identity": (BEFORE + r"(?:\d{3}-\d{2}-\d{4}|\d{17}[\dXx])\b", is_identity),
}


def personal_columns(table: pl.DataFrame, progress: Progress = no_progress) -> pl.DataFrame:
    """`has_email`, `has_phone`, `has_card`, `has_account` and `has_identity` of each pair: true where one of its texts has it."""
    columns = [f"{column}_text" for column in ("prompt", *SIDES)]
    texts = pl.concat([table[column] for column in columns]).unique()
    found = {}
    for number, kind in enumerate(KINDS, start=1):
        having = texts_with(texts, *KINDS[kind]).implode()
        found[f"has_{kind}"] = table.select(pl.any_horizontal(pl.col(columns).is_in(having))).to_series()
        progress("personal data", number, len(KINDS))
    return pl.DataFrame(found)


def personal_facts(table: pl.DataFrame) -> dict[str, Any]:
    """How many pairs have each kind of personal data, empty where it was not looked for."""
    kinds = [kind for kind in KINDS if f"has_{kind}" in table.columns]
    return {"personal": {kind: int(table[f"has_{kind}"].sum()) for kind in kinds}} if kinds else {}


def texts_with(texts: pl.Series, pattern: str, is_real: Callable[[str], bool]) -> pl.Series:
    """Those of the texts with something that a pattern proposes and a function confirms.

    >>> texts_with(pl.Series(["Write to ann@web.de.", "Write to me@example.com."]), *KINDS["email"]).to_list()
    ['Write to ann@web.de.']
    """
    proposed = texts.filter(texts.str.contains(pattern)).to_frame("text")
    each = proposed.with_columns(found=pl.col("text").str.extract_all(pattern)).explode("found")
    real = [found for found in each["found"].unique().to_list() if is_real(found)]
    return each.filter(pl.col("found").is_in(real))["text"].unique()
