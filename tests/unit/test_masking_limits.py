"""Masking under hostile input: work grows with the text, and the operator's expressions are bounded.

Growth is measured, not speed: a text four times as long may take at most eight times as long, where quadratic
work would take sixteen times as long.
"""

import time

import pytest

from tailer.core.masking.expressions import LONGEST_REPEAT
from tailer.core.masking.masker import Masker, MaskingError, compile_rules

KEY = bytes(16)
SHORT_LENGTH = 40_000
FACTOR = 4
MOST_GROWTH = 8.0
# Below this a measurement says nothing.
LEAST_SECONDS = 0.02

HOSTILE = [
    "a", "1", "1 ", "1-", "4111 ", "0(", "+1", "(0", "a@", "@a.", "a@a.", "%40", "a.", "DE89", "DE89 ",
    "de", "sk-",
    "xsk-1", "sk-ant-", "k-lf-", "sk-or-", "AIza", "ya29.", "AKIA", "ghp_", "github_pat_", "glpat-",
    "xoxb-",
    "hooks.slack.com/services/", "sk_live_", "hf_", "gsk_", "xai-", "pplx-", "r8_", "SG.a.", "SK",
    "npm_", "pypi-",
    "dop_v1_", "12345678:AA", "shpat_", "hvs.", "dckr_pat_", "dapi", "lin_api_", "ntn_", "eyJ",
    "eyJa.", "eyJ-",
    "bearer ", "authorization: basic ", "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "://a:", "://",
    "password=",
    'password="', "password is ", 'token: \\"', "api key ", "api key " + "a1" * 16 + " ", "[email:",
    "[", '{"ssn":',
    '"ssn":"', '"ssn":[', '\\"ssn\\":\\"', "\ud800", "\x00", " ", "\\", '"', "\u0130password=x1y2z3 ",
    "call 1",
]  # fmt: skip


def seconds(masker: Masker, text: str) -> float:
    """How long masking this text takes."""
    start = time.perf_counter()
    masker.mask_text(text)
    return time.perf_counter() - start


def growth(masker: Masker, unit: str, length: int) -> float:
    """How many times the work grows when the text grows by FACTOR; the best of up to three measurements."""
    short = unit * (length // len(unit))
    measured = MOST_GROWTH
    for _ in range(3):
        before = seconds(masker, short)
        measured = min(measured, seconds(masker, short * FACTOR) / max(before, LEAST_SECONDS))
        if measured < MOST_GROWTH:
            break
    return measured


@pytest.mark.parametrize("unit", HOSTILE)
def test_work_grows_with_the_length_of_hostile_text(unit: str) -> None:
    """A hundred and sixty kilobytes made to trip one rule cost no more than in proportion."""
    assert growth(Masker(compile_rules([], ["ssn"]), KEY), unit, SHORT_LENGTH) < MOST_GROWTH


@pytest.mark.parametrize(
    ("expression", "unit"), [(r"\d+x", "1"), (r"a{1,50}b{1,50}c", "ab"), (r"\w{1,64}@\w{1,64}z", "a@")]
)
def test_work_of_the_operators_expressions_grows_with_the_length(expression: str, unit: str) -> None:
    """A repeat that would be quadratic in Python's engine is cut to a fixed reach."""
    masker = Masker(compile_rules([expression], [], switched_off=["email"]), KEY)

    assert growth(masker, unit, 20_000) < MOST_GROWTH


@pytest.mark.parametrize(
    ("expression", "position", "reason"),
    [
        ("ab(c", 2, "missing \\)"),
        ("[a", 0, "unterminated"),
        ("(a+)+b", 4, "nested quantifier"),
        ("(a|b)*c", 5, "alternation"),
        ("x(?:y?z){2,}", 8, "nested quantifier"),
        (r"\w+@\w+", 4, "5000 ways"),
        ("(a?){30}b", 4, "5000 ways|ways"),
        (r"(a)\1", 3, "back-reference"),
        ("(?P<n>a)(?P=n)", 8, "not supported"),
        ("(?x)a b", 0, "not supported"),
        ("a*", 0, "empty text"),
        ("a{3000}", 1, "too long"),
    ],
)
def test_an_unusable_expression_is_named_with_its_position(
    expression: str, position: int, reason: str
) -> None:
    """The operator learns which expression, where in it, and why."""
    with pytest.raises(ValueError, match=reason) as caught:
        compile_rules(["fine", expression], [])

    assert f"masking expression 2 ({expression!r}), position" in str(caught.value)
    assert f"position {position}:" in str(caught.value) or "5000 ways" in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "text", "expected"),
    [
        (r"EMP-\d+", "see EMP-12345.", "see []."),
        (r"(?i)emp-\d+", "see Emp-12345.", "see []."),
        (r"(?:\d{4}[- ]?){3}", "no 1234-5678-9012", "no []"),
        (r"[]x]{2,3}!", "a x]!", "a []"),
        (r"(?<=id )\w{3}\b", "id abc", "id []"),
        (r"key\[\d{1,3}\]", "key[12] x", "[] x"),
        (r"case (?P<value>\d+)", "case 77 open", "case [] open"),
        (r"\bProjekt (?:Adler|Falke)\b", "über Projekt Falke", "über []"),
        (r"(?#note)a{2}b*?c", "xaabbc", "x[]"),
    ],
)
def test_usual_expressions_work_as_written(expression: str, text: str, expected: str) -> None:
    """The bound does not change what an ordinary expression matches."""
    masker = Masker(compile_rules([expression], [], switched_off=["phone"]), KEY)

    masked = masker.mask_text(text)

    before, after = expected.split("[]")
    assert masked.startswith(f"{before}[pattern-1:")
    assert masked.endswith(f"]{after}")


def test_a_match_that_may_be_cut_short_is_a_failure() -> None:
    """Rather than leave the rest of a long match in the text, the content is withheld."""
    masker = Masker(compile_rules(["secret:.*"], []), KEY)

    with pytest.raises(MaskingError, match="pattern-1"):
        masker.mask_text("secret:" + "x" * (2 * LONGEST_REPEAT))


def test_a_text_that_never_settles_is_a_failure() -> None:
    """An expression that eats one sign of every piece would go on sign by sign."""
    masker = Masker(compile_rules(["^."], []), KEY)

    with pytest.raises(MaskingError, match="passes"):
        masker.mask_text("x" * 100)


def test_an_empty_field_name_is_refused() -> None:
    """It would stand for any value behind an empty key."""
    with pytest.raises(ValueError, match="field name 2 is empty"):
        compile_rules([], ["ssn", ""])
