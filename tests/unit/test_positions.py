"""Places in a change stream: which comes first."""

from tailer.core.stream.positions import StreamPosition, token_seconds

TOKEN = "8265F0000100000002"


def test_positions_are_compared_by_the_servers_time_down_to_the_single_change() -> None:
    """Two changes of one second are told apart; what follows in a token says which row, not when."""
    earlier, later = StreamPosition(TOKEN + "FF", 0), StreamPosition("8265F0000100000003" + "00", 0)
    assert earlier.moment < later.moment
    assert StreamPosition(TOKEN + "AA", 0).moment == earlier.moment
    seconds = token_seconds(TOKEN)
    assert seconds == 0x65F00001


def test_a_moment_without_a_token_comes_before_the_changes_of_its_second() -> None:
    """A stream that begins at a second has read nothing of it."""
    seconds = token_seconds(TOKEN) or 0
    assert StreamPosition(None, seconds).moment < StreamPosition(TOKEN, seconds).moment
    assert StreamPosition(None, seconds + 1).moment > StreamPosition(TOKEN, seconds).moment
    assert StreamPosition("damaged", seconds).moment == StreamPosition(None, seconds).moment
