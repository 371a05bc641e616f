"""The bytes that a trace may hold: texts are cut at the limit, and a cut says so."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.json_text import encode_json
from tailer.core.masking.masker import Masker, compile_rules
from tailer.core.trace.bounds import Allowance, Bounds
from tests.unit.documents import ANY_TEXT

MARK = re.compile(r"… \[cut: (\d+) bytes left out\]\Z")
RULES = compile_rules([], [])
LONGER_TEXT = st.builds(lambda text, times: text * times, ANY_TEXT, st.integers(0, 12))
LIMITS = st.builds(Bounds, field_bytes=st.integers(0, 200), trace_bytes=st.integers(0, 400))


def masker() -> Masker:
    return Masker(RULES, bytes(16))


def size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


@given(LIMITS, st.lists(LONGER_TEXT, max_size=8))
def test_no_text_and_no_trace_exceeds_its_limit(bounds: Bounds, texts: list[str]) -> None:
    """Beyond the limit is only the mark of the cut. Bytes count, not characters."""
    allowance = Allowance(bounds)
    kept = [
        MARK.sub("", taken) if taken != text else taken for text in texts for taken in [allowance.take(text)]
    ]

    assert all(size(text) <= bounds.field_bytes for text in kept)
    assert sum(map(size, kept)) <= bounds.trace_bytes


@given(LIMITS, st.lists(LONGER_TEXT, max_size=8))
def test_a_cut_keeps_the_beginning_and_says_how_much_is_missing(bounds: Bounds, texts: list[str]) -> None:
    """Cut between characters, never inside one."""
    allowance = Allowance(bounds)
    missing = 0
    for text in texts:
        taken = allowance.take(text)
        if taken != text:
            mark = MARK.search(taken)
            assert mark is not None
            whole, kept = text.encode("utf-8", "replace"), taken[: mark.start()].encode()
            assert whole.startswith(kept)
            assert "\ufffd" not in taken or "\ufffd" in text
            # Up to three bytes of a character that no longer fitted are missing beside those counted.
            assert 0 <= len(whole) - len(kept) - int(mark[1]) <= 3
            missing += int(mark[1])
    assert allowance.cut_bytes == missing


@given(st.lists(LONGER_TEXT, max_size=8))
def test_a_trace_below_its_limits_is_not_touched(texts: list[str]) -> None:
    total = sum(len(encode_json(text).encode("utf-8", "replace")) for text in texts)
    allowance = Allowance(Bounds(field_bytes=total, trace_bytes=total))

    assert [allowance.take(text) for text in texts] == texts
    assert allowance.cut_bytes == 0


def test_the_limit_is_reached_exactly() -> None:
    """One byte less is a cut of one character."""
    assert Allowance(Bounds(field_bytes=6)).take("a€bc") == "a€bc"
    assert Allowance(Bounds(field_bytes=5)).take("a€bc") == "a€b… [cut: 1 bytes left out]"
    assert Allowance(Bounds(field_bytes=3)).take("a€bc") == "a… [cut: 3 bytes left out]"


def test_the_first_texts_are_kept_and_the_later_ones_cut() -> None:
    """Question and answer are taken before history and tools."""
    allowance = Allowance(Bounds(field_bytes=100, trace_bytes=10))

    assert allowance.take("12345678") == "12345678"
    assert allowance.take("abcd").startswith("ab… ")
    assert allowance.take("x") == "… [cut: 1 bytes left out]"
    assert allowance.cut_bytes == 3


def test_texts_that_fitted_without_being_measured_count_once_one_does_not_fit() -> None:
    allowance = Allowance(Bounds(field_bytes=1_000, trace_bytes=100))

    assert allowance.take("x" * 10) == "x" * 10
    assert allowance.take("y" * 95) == f"{'y' * 90}… [cut: 5 bytes left out]"
    assert allowance.take("z") == "… [cut: 1 bytes left out]"


@pytest.mark.parametrize(
    "secret",
    [
        "4111 1111 1111 1111",
        "jane.roe@example.com",
        "sk-ant-api03-ABCDEFGH12345678abcdefgh",
        "+49 170 1234567",
        "ghp_abcdefghij1234567890abcdefghij1234",
        "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIx" * 300 + ".abcdefghij",
    ],
)
def test_no_beginning_of_a_value_stands_before_a_cut(secret: str) -> None:
    """A value is found before it is cut. It is shown as a placeholder, or not at all where that has no room."""
    for before in (80, 85, 91, 95, 99, 100):
        text = f"{'x' * (before - 1)} {secret}{' y' * 6_000}"
        taken = Allowance(Bounds(field_bytes=100), masker()).take(text)

        assert re.fullmatch(r"x+ (\[[a-z-]+:[0-9a-f]{12}\])?( y?)*… \[cut: \d+ bytes left out\]", taken)


@given(st.integers(30, 300), st.integers(0, 600), st.lists(st.integers(0, 40), max_size=6))
def test_masked_texts_stay_below_their_limits_and_no_placeholder_is_split(
    field_bytes: int, trace_bytes: int, numbers: list[int]
) -> None:
    """Placeholders are longer than short addresses, and count as what is sent."""
    allowance = Allowance(Bounds(field_bytes=field_bytes, trace_bytes=trace_bytes), masker())
    shown = []
    for number in numbers:
        text = "".join(f"{index}a@b.cd\n" for index in range(number))
        taken = allowance.take(text)
        kept = MARK.sub("", taken)
        assert re.fullmatch(r"(\[email:[0-9a-f]{12}\]\n?)*", kept)
        assert kept == taken or kept.count("]\n") < number
        shown.append(kept)

    assert all(size(text) <= field_bytes for text in shown)
    assert sum(map(size, shown)) <= trace_bytes


def test_a_text_that_masking_makes_shorter_still_says_what_is_missing() -> None:
    key = "-----BEGIN PRIVATE KEY-----\n" + "MIIabc\n" * 100 + "-----END PRIVATE KEY-----"

    taken = Allowance(Bounds(field_bytes=1_000), masker()).take(key + "\n" + "y" * 1_000)

    assert re.fullmatch(r"\[private-key:[0-9a-f]{12}\]\ny+… \[cut: (\d+) bytes left out\]", taken)
    mark = MARK.search(taken)
    assert mark is not None
    assert int(mark[1]) == len(key) + 1 + 1_000 - 1_000


@pytest.mark.parametrize(
    "shown", ["\x01" * 800_000 + "a" * 15_000_000, "\x1b[31m" * 200_000 + "a" * 5_000_000]
)
def test_what_json_makes_of_the_beginning_of_a_text_counts(shown: str) -> None:
    """A coloured terminal, and then plain text: what is kept is longer in JSON than what is cut."""
    taken = Allowance(Bounds(field_bytes=1_000_000)).take(shown)

    assert len(encode_json(MARK.sub("", taken))) <= 1_000_000 + len('""')


def test_what_json_makes_of_a_text_counts() -> None:
    """A megabyte of control characters would be six in the observation: it is cut to what fits."""
    allowance = Allowance(Bounds(field_bytes=1_000_000, trace_bytes=6_000_000))

    taken = allowance.take("\x01" * 1_000_000)

    assert len(encode_json(taken)) <= 1_000_100
    assert "[cut: " in taken
