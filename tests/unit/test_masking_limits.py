"""Masking under hostile input: work grows with the text, and the operator's expressions are bounded.

Growth is measured, not speed: a text four times as long may take at most eight times as long, where quadratic
work would take sixteen times as long.
"""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.masking.detection import Rule
from tailer.core.masking.expressions import LONGEST_REPEAT
from tailer.core.masking.masker import Masker, MaskingError, MaskingRules, compile_rules
from tailer.core.masking.rules import BUILT_IN_RULES

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


def seconds(rules: MaskingRules, text: str) -> float:
    """How long masking this text takes."""
    masker = Masker(rules, KEY)
    start = time.perf_counter()
    masker.mask_text(text)
    return time.perf_counter() - start


def growth(rules: MaskingRules, unit: str, length: int) -> float:
    """How many times the work grows when the text grows by FACTOR; the best of up to three measurements."""
    short = unit * (length // len(unit))
    measured = MOST_GROWTH
    for _ in range(3):
        before = seconds(rules, short)
        measured = min(measured, seconds(rules, short * FACTOR) / max(before, LEAST_SECONDS))
        if measured < MOST_GROWTH:
            break
    return measured


@pytest.mark.parametrize("unit", HOSTILE)
def test_work_grows_with_the_length_of_hostile_text(unit: str) -> None:
    """A hundred and sixty kilobytes made to trip one rule cost no more than in proportion."""
    assert growth(compile_rules([], ["ssn"]), unit, SHORT_LENGTH) < MOST_GROWTH


@pytest.mark.parametrize(
    ("expression", "unit"), [(r"\d+x", "1"), (r"a{1,50}b{1,50}c", "ab"), (r"\w{1,64}@\w{1,64}z", "a@")]
)
def test_work_of_the_operators_expressions_grows_with_the_length(expression: str, unit: str) -> None:
    """A repeat that would be quadratic in Python's engine is cut to a fixed reach."""
    rules = compile_rules([expression], [], switched_off=["email"])

    assert growth(rules, unit, 20_000) < MOST_GROWTH


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


ADDRESSES = "".join(f"a{number}@b.cd\n" for number in range(30_000))


@pytest.mark.parametrize(
    "value",
    [ADDRESSES * 4, [ADDRESSES + str(number) for number in range(4)], ["a"] * 300_000],
    ids=["one text", "several texts", "many values"],
)
def test_what_takes_more_work_than_a_turn_may_have_is_a_failure(value: object) -> None:
    """Masking is one piece of work, and probes and the lease would wait for it. The bound counts work, not time."""
    with pytest.raises(MaskingError, match="steps"):
        Masker(compile_rules([], []), KEY).mask_value(value)


def test_after_too_much_work_only_what_is_short_and_holds_nothing_is_shown() -> None:
    masker = Masker(compile_rules([], []), KEY)
    with pytest.raises(MaskingError):
        masker.mask_value(ADDRESSES * 4)

    assert masker.mask_value("an agent's name") == "an agent's name"
    for withheld in ("a@b.cd", "long " * 1_000):
        with pytest.raises(MaskingError):
            masker.mask_value(withheld)


def test_a_long_text_that_comes_again_takes_no_work_and_counts_again() -> None:
    """A question is in the root, in the prompt and in the trace of the title."""
    masker = Masker(compile_rules([], []), KEY)

    found = {str(masker.mask_value(text)) for text in [ADDRESSES, ADDRESSES + " "] * 10}

    assert len(found) == 2
    assert masker.counts["email"] == 20 * 30_000


def test_what_is_masked_takes_no_work_when_it_is_masked_again() -> None:
    masker = Masker(compile_rules([], []), KEY)
    masked = masker.mask_value(ADDRESSES)

    assert [masker.mask_value(masked) for _ in range(20)] == [masked] * 20
    assert masker.counts["email"] == 30_000


def test_a_long_text_that_failed_fails_again_without_work() -> None:
    """The expression comes first, so the failure is not for want of work."""
    masker = Masker(compile_rules(["x+"], []), KEY)
    text = ADDRESSES + "x" * 2_000

    for _ in range(20):
        with pytest.raises(MaskingError, match="pattern-1"):
            masker.mask_value(text)


SHORT_RULES = [rule for rule in BUILT_IN_RULES if rule.shortest > 1]


@pytest.mark.parametrize("rule", SHORT_RULES, ids=[rule.name for rule in SHORT_RULES])
@given(data=st.data())
def test_no_rule_finds_anything_in_a_text_that_is_too_short_for_it(rule: Rule, data: st.DataObject) -> None:
    """So pieces between two matches need not be searched."""
    pieces = st.sampled_from(
        ["a", "B", "1", "4", "@", ".", ":", "/", "=", "+", " ", "密码", "sig", "是", "://", "DE", ">"]
    )
    text = data.draw(st.lists(pieces, max_size=rule.shortest).map("".join))[: rule.shortest - 1]

    assert [span for span in rule.find(text) if span[0] < span[1]] == []


def test_an_empty_field_name_is_refused() -> None:
    """It would stand for any value behind an empty key."""
    with pytest.raises(ValueError, match="field name 2 is empty"):
        compile_rules([], ["ssn", ""])
