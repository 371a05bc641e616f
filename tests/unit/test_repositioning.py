"""What it means to move a position: read again, skipped, or neither."""

import pytest

from tailer.operations.checkpoints import Repositioning, Stretch, compare_positions


@pytest.mark.parametrize(
    ("stored", "begin", "expected"),
    [
        (100, 40, Repositioning(Stretch(40, 100), None)),
        (100, 140, Repositioning(None, Stretch(100, 140))),
        (100, 100, Repositioning(None, None)),
        (None, 40, Repositioning(None, None)),
    ],
)
def test_an_earlier_position_reads_again_and_a_later_one_skips(
    stored: int | None, begin: int, expected: Repositioning
) -> None:
    assert compare_positions(stored, begin) == expected
