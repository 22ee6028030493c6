"""The one error type of the project: something that the person who typed the command can fix."""

from collections.abc import Iterable
from difflib import get_close_matches


class CurateError(Exception):
    """A problem the user can fix; its message is one line: where, what was found, what to type next.

    The command line prints it after `error: ` and exits with code 2. Everything else that is raised is our own bug.
    """


def unknown_choice(what: str, found: str, choices: Iterable[str]) -> CurateError:
    """The error for a value outside a table of choices, with the choices and the nearest one.

    >>> print(unknown_choice("policy", "auto", ["auto", "secrets2-flip"]))
    unknown policy 'auto': choose one of auto, secrets2-flip (did you mean auto?)
    """
    names = list(choices)
    near = get_close_matches(found, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return CurateError(f"unknown {what} {found!r}: choose one of {', '.join(names)}{hint}")
