"""The operator's own regular expressions, made safe to run on any text.

Owns: the bound on their work. Python's engine backtracks and cannot be interrupted, so an expression is
judged before it is used: what it may try at one position is counted (alternatives add, neighbours
multiply), and the result does not depend on the length of the text, so the whole scan is linear:
- an unbounded repeat (`*`, `+`, `{n,}`) reaches at most LONGEST_REPEAT characters beyond its minimum, and
- an unbounded repeat of something that itself varies (a nested quantifier or an alternation),
  back-references, conditionals and expressions with more than MOST_WAYS ways are refused.
Refuses: to run anything. Treating a match that the bound may have cut short as a failure is the caller's.
"""

import re
from dataclasses import dataclass

LONGEST_REPEAT = 1000
MOST_WAYS = 5000
LONGEST_EXPRESSION = 2000
# An atom with two ways that is repeated more often than this has more than MOST_WAYS.
MOST_VARYING = 20
GROUP_START = re.compile(
    r"\((?:\?(?:P<[A-Za-z_]\w*>|<?[=!]|>|:|(?P<flags>[aims]*(?:-[ims]+)?)(?P<scope>[:)])))?"
)
QUANTIFIER = re.compile(
    r"(?:(?P<symbol>[*+?])|\{(?P<least>[0-9]*)(?P<comma>,?)(?P<most>[0-9]*)\})(?P<mode>[?+]?)"
)
CLASS = re.compile(r"\[\^?\]?(?:[^\]\\]|\\.)*\]", re.DOTALL)


class _RefusedError(Exception):
    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position
        self.reason = reason


@dataclass(slots=True)
class _Reader:
    """Reads one expression from left to right, counting ways and rewriting unbounded repeats."""

    text: str
    position: int = 0
    written: str = ""

    def copy_to(self, end: int) -> None:
        self.written += self.text[self.position : end]
        self.position = end

    def alternatives(self) -> int:
        """The number of ways of everything up to the end or the closing bracket."""
        total = 0
        ways = 1
        while self.position < len(self.text) and self.text[self.position] != ")":
            if self.text[self.position] == "|":
                self.copy_to(self.position + 1)
                total += ways
                ways = 1
            else:
                start = self.position
                ways *= self.repeats(self.atom())
                if total + ways > MOST_WAYS:
                    raise _RefusedError(
                        start,
                        f"may try more than {MOST_WAYS} ways at every position; give `*`, `+` or `{{n,}}` "
                        "an upper bound such as {1,32}, or use fewer of them",
                    )
        return total + ways

    def atom(self) -> int:
        start = self.position
        character = self.text[start]
        if character == "\\":
            if self.text[start + 1].isdecimal() and self.text[start + 1] != "0":
                raise _RefusedError(start, "a back-reference is not supported")
            self.copy_to(start + 2)
            return 1
        if character == "[":
            matched = CLASS.match(self.text, start)
            self.copy_to(matched.end() if matched is not None else start + 1)
            return 1
        if character != "(":
            self.copy_to(start + 1)
            return 1
        if self.text.startswith("(?#", start):
            self.copy_to(self.text.index(")", start) + 1)
            return 1
        opening = GROUP_START.match(self.text, start)
        if opening is None or (opening.end() == start + 1 and self.text.startswith("(?", start)):
            raise _RefusedError(
                start, "back-references, conditionals and the flags x, L, u are not supported"
            )
        self.copy_to(opening.end())
        if opening["scope"] == ")":
            return 1
        ways = self.alternatives()
        self.copy_to(self.position + 1)
        return ways

    def repeats(self, ways: int) -> int:
        """The number of ways of an atom together with the quantifier that may follow it."""
        found = QUANTIFIER.match(self.text, self.position)
        if found is None or found.group() in {"{}", "{}?", "{}+"}:
            return ways
        start = self.position
        least, most = _bounds(found)
        if most is None:
            if ways > 1:
                raise _RefusedError(
                    start,
                    "an unbounded repeat of something that itself varies (a nested quantifier or an "
                    "alternation) can take for ever; use a character class or an upper bound",
                )
            most = least + LONGEST_REPEAT
        self.position = found.end()
        self.written += f"{{{least},{most}}}{found['mode']}"
        if most > LONGEST_REPEAT * 2:
            raise _RefusedError(start, f"a repeat of more than {LONGEST_REPEAT * 2} is too long")
        if ways == 1:
            return most - least + 1
        if least >= MOST_VARYING:
            return MOST_WAYS + 1
        return sum(ways**count for count in range(least, min(most, MOST_VARYING) + 1))


def _bounds(found: re.Match[str]) -> tuple[int, int | None]:
    match found["symbol"]:
        case "*":
            return 0, None
        case "+":
            return 1, None
        case "?":
            return 0, 1
        case _:
            least = int(found["least"] or 0)
            if not found["comma"]:
                return least, least
            return least, int(found["most"]) if found["most"] else None


def compile_expression(expression: str, number: int) -> re.Pattern[str]:
    """Compiles the operator's expression with this number (from 1), bounded as the module says.

    Raises ValueError, naming expression and position, when it is no expression, matches nothing at all
    (the empty text) or cannot be bounded.
    """

    def refuse(position: int, reason: str) -> ValueError:
        return ValueError(f"masking expression {number} ({expression!r}), position {position}: {reason}")

    if len(expression) > LONGEST_EXPRESSION:
        raise refuse(LONGEST_EXPRESSION, f"is longer than {LONGEST_EXPRESSION} characters")
    try:
        re.compile(expression)
    except re.error as error:
        raise refuse(error.pos or 0, error.msg) from error
    except (RecursionError, OverflowError) as error:
        raise refuse(0, "is nested too deeply or repeats too often") from error
    reader = _Reader(expression)
    try:
        reader.alternatives()
        pattern = re.compile(reader.written)
    except _RefusedError as refusal:
        raise refuse(refusal.position, refusal.reason) from None
    except RecursionError as error:
        raise refuse(0, "is nested too deeply") from error
    if pattern.search("") is not None or pattern.fullmatch("") is not None:
        raise refuse(0, "matches the empty text, so it would mask nothing or everything")
    return pattern
