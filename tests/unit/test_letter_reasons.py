"""Why something is a dead letter: stored as a text that earlier and later releases read too."""

import pytest

from tailer.flow.letter_reasons import LetterKind, LetterReason


@pytest.mark.parametrize("kind", LetterKind)
def test_a_stored_reason_is_read_again(kind: LetterKind) -> None:
    reason = LetterReason(kind, "Some: detail")

    assert LetterReason.parse(str(reason)) == reason


@pytest.mark.parametrize(
    ("text", "kind", "detail"),
    [
        ("build_failed: ValueError", LetterKind.BUILD_FAILED, "ValueError"),
        ("rejected: http_400", LetterKind.REJECTED, "http_400"),
        ("missing_in_langfuse", LetterKind.MISSING_IN_LANGFUSE, ""),
        ("something new", LetterKind.OTHER, "something new"),
        ("something: new", LetterKind.OTHER, "something: new"),
        ("other", LetterKind.OTHER, "other"),
        ("", LetterKind.OTHER, ""),
    ],
)
def test_texts_of_any_release_are_understood(text: str, kind: LetterKind, detail: str) -> None:
    assert LetterReason.parse(text) == LetterReason(kind, detail)
    assert str(LetterReason.parse(text)) == text
