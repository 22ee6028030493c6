"""How numbers are written in the report: the same count, percentage and interval on the page and on the terminal."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

NO_BREAK_SPACE = "\u00a0"  # keeps a number and its unit on one line
MINUS = "\u2212"  # as wide as a digit, so that columns line up
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def count(n: int) -> str:
    """A count with separators.

    >>> count(8552)
    '8,552'
    """
    return f"{n:,}"


def counted(n: int, singular: str, plural: str = "") -> str:
    """A count and its noun.

    >>> counted(1, "pair"), counted(1200, "pair"), counted(2, "reply", "replies")
    ('1 pair', '1,200 pairs', '2 replies')
    """
    return f"{count(n)} {singular if n == 1 else plural or singular + 's'}"


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage.

    >>> percent(0.587), percent(0.05, digits=0)
    ('58.7\\xa0%', '5\\xa0%')
    """
    return f"{100 * share:.{digits}f}{NO_BREAK_SPACE}%"


def short_percent(share: float) -> str:
    """A share that somebody chose, without digits that say nothing.

    >>> short_percent(0.05), short_percent(0.125)
    ('5\\xa0%', '12.5\\xa0%')
    """
    return f"{100 * share:.3g}{NO_BREAK_SPACE}%"


def interval(estimate: Mapping[str, Any]) -> str:
    """The 95 % interval of a share, as percentages.

    >>> interval({"value": 0.587, "low": 0.575, "high": 0.5994})
    '57.5 to 59.9\\xa0%'
    """
    return f"{100 * estimate['low']:.1f} to {100 * estimate['high']:.1f}{NO_BREAK_SPACE}%"


def decimal(value: float, digits: int = 2) -> str:
    """A signed quantity, with a true minus sign.

    >>> decimal(-1.234) == MINUS + "1.23", decimal(0.5)
    (True, '0.50')
    """
    return f"{value:.{digits}f}".replace("-", MINUS)


def significant(value: float) -> str:
    """A size that is not negative, to two digits that count.

    >>> significant(0.0344), significant(283_333), significant(0.0)
    ('0.034', '280,000', '0')
    >>> significant(0.00000123).split(NO_BREAK_SPACE)[::2]
    ['1.2', '10⁻⁶']
    """
    text = f"{value:.2g}"
    if "e-" not in text:
        return f"{Decimal(text):,f}"
    digits, exponent = text.split("e")
    return f"{digits}{NO_BREAK_SPACE}×{NO_BREAK_SPACE}10{str(int(exponent)).translate(RAISED)}"


def decimal_interval(estimate: Mapping[str, Any], digits: int = 3) -> str:
    """The 95 % interval of a score that is no share.

    >>> decimal_interval({"low": 0.0469, "high": 0.0798})
    '0.047 to 0.080'
    """
    return f"{decimal(estimate['low'], digits)} to {decimal(estimate['high'], digits)}"
