"""How patiently the streams are asked while nothing happens."""

import time

import pytest

from tailer.mongo.quiet import Quiet


def test_the_longer_it_is_quiet_the_longer_the_server_holds_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Up to what the connection allows; an event ends the quiet."""
    moment = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: moment)
    quiet = Quiet()
    holds = []
    for later in (0, 1, 3, 60):
        moment = 100.0 + later
        holds.append(quiet.hold_milliseconds(shortest=500, longest=2_500))
    quiet.end()

    assert holds == [500, 500, 1_500, 2_500]
    assert quiet.hold_milliseconds(shortest=500, longest=2_500) == 500
    assert quiet.hold_milliseconds(shortest=500, longest=300) == 300
