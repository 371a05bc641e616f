"""What `tailer dead-letters` says to people and to programs; the desk itself is shown on a real database."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

import tailer.operations.dead_letters
from tailer.cli import execute
from tailer.flow.letter_reasons import LetterReason
from tailer.mongo.state.survey import StoredLetter
from tailer.operations.dead_letters import Replayed
from tailer.settings import Settings

REFUSED = StoredLetter(
    letter_id="ab" * 16,
    record_id="ab" * 16,
    destination="default",
    message_id="m1",
    document_key="6" * 24,
    reason=LetterReason.parse("rejected: http_400"),
    first_failed_at=datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
    last_failed_at=datetime(2026, 3, 1, 13, 0, tzinfo=UTC),
    tries=3,
    stored_bytes=2048,
    replay=None,
)
UNBUILT = replace(
    REFUSED,
    letter_id="cd" * 16,
    record_id="cd" * 16,
    message_id="m\x1b[31m2",
    reason=LetterReason.parse("build_failed: ValueError"),
    stored_bytes=None,
)


MISSING = replace(
    REFUSED, message_id="m3", reason=LetterReason.parse("missing_in_langfuse"), stored_bytes=None
)


NAMESAKE = replace(
    UNBUILT, message_id="m4", reason=LetterReason.parse("build_failed: message_id_of_another_row")
)


@dataclass(slots=True)
class Desk:
    """Stands in for the desk: what it holds, and what it was asked to do."""

    letters: list[StoredLetter]
    has_daemon: bool = True
    replayed: Replayed = field(default_factory=lambda: Replayed(2, 0, []))
    asked: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    async def list_letters(self, destination: str | None = None) -> Sequence[StoredLetter]:
        return [letter for letter in self.letters if destination in (None, letter.destination)]

    async def choose(self, names: Sequence[str], destination: str | None = None) -> Sequence[StoredLetter]:
        return [each for each in await self.list_letters(destination) if each.message_id in names]

    async def ask(self, letters: Sequence[StoredLetter]) -> None:
        self.asked += [letter.message_id for letter in letters]

    async def has_sender(self) -> bool:
        return self.has_daemon

    async def follow(self, letters: Sequence[StoredLetter], patience: timedelta) -> Replayed:
        assert letters
        assert patience > timedelta()
        return self.replayed

    async def drop(self, letters: Sequence[StoredLetter]) -> int:
        self.dropped += [letter.message_id for letter in letters]
        return len(letters)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    stand_in = Desk([REFUSED, UNBUILT])

    @asynccontextmanager
    async def open_stand_in(settings: Settings) -> AsyncIterator[Desk]:
        assert settings.mongo_database == "LibreChat"
        yield stand_in

    monkeypatch.setenv("TAILER_MONGO_URI", "mongodb://localhost/LibreChat")
    monkeypatch.setattr(tailer.operations.dead_letters, "open_letters", open_stand_in)
    return stand_in


def test_the_list_has_a_line_for_each_and_no_control_characters(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids come from whoever wrote the row."""
    assert desk.letters
    assert execute(["dead-letters", "list"]) == 0

    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["id", "last", "failure", "tries", "reason", "message", "replay"]
    assert first.split() == ["abababababab", "2026-03-01T13:00:00Z", "3", "rejected:", "http_400", "m1"]
    assert "\x1b" not in second
    assert heading.index("reason") == first.index("rejected") == second.index("build_failed")


def test_letters_of_several_destinations_are_told_apart(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one destination there is no column for it."""
    assert "destination" not in (execute(["dead-letters", "list"]), capsys.readouterr().out)[1]
    desk.letters = [REFUSED, replace(UNBUILT, letter_id="team-a/" + "cd" * 16, destination="team-a")]

    assert execute(["dead-letters", "list"]) == 0
    both = capsys.readouterr().out
    assert execute(["dead-letters", "list", "--destination", "team-a"]) == 0
    one = capsys.readouterr().out
    assert execute(["dead-letters", "replay", "--all", "--destination", "team-a"]) == 0

    assert [line.split()[1] for line in both.splitlines()] == ["destination", "default", "team-a"]
    assert [line.split()[0] for line in one.splitlines()] == ["id", "cdcdcdcdcdcd"]
    assert desk.asked == ["m\x1b[31m2"]


def test_an_empty_list_says_what_that_means(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.letters.clear()

    assert execute(["dead-letters", "list"]) == 0
    assert capsys.readouterr().out == "no dead letters: every turn could be sent\n"


def test_programs_get_whole_ids_and_times_with_zone(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk.letters
    assert execute(["dead-letters", "list", "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert [letter["record_id"] for letter in told] == ["ab" * 16, "cd" * 16]
    assert told[0]["first_failed_at"] == "2026-03-01T12:00:00+00:00"
    assert told[1]["stored_bytes"] is None


@pytest.mark.parametrize(
    ("name", "advice", "held"),
    [
        ("m1", "Langfuse refused it", "2048 bytes"),
        (UNBUILT.message_id, "update", "nothing"),
        (MISSING.message_id, "acknowledged it and does not show it", "nothing"),
        (NAMESAKE.message_id, "another user has a message of the same id", "nothing"),
    ],
)
def test_one_is_shown_with_what_to_do_about_it(
    desk: Desk, capsys: pytest.CaptureFixture[str], name: str, advice: str, held: str
) -> None:
    desk.letters += [MISSING, NAMESAKE]
    assert execute(["dead-letters", "show", name]) == 0

    shown = capsys.readouterr().out
    assert advice in shown
    assert held in shown


def test_a_replay_that_sent_all_succeeds(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["dead-letters", "replay", "--all"]) == 0

    assert desk.asked == ["m1", UNBUILT.message_id]
    assert capsys.readouterr().out == "sent 2 of 2\n"


def test_a_replay_that_failed_again_says_so_and_fails(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.replayed = Replayed(0, 1, [UNBUILT])

    assert execute(["dead-letters", "replay", "m1", UNBUILT.message_id]) == 1
    out = capsys.readouterr().out
    assert "cdcdcdcdcdcd  failed again: build_failed: ValueError" in out
    assert "1 still wait" in out


def test_a_replay_without_a_running_tailer_waits_for_one(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.has_daemon = False

    assert execute(["dead-letters", "replay", "m1"]) == 0
    assert desk.asked == ["m1"]
    assert "1 dead letter marked: no tailer is running now" in capsys.readouterr().out


def test_nothing_is_dropped_unasked(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard input is no terminal here: nobody could have agreed."""
    assert execute(["dead-letters", "drop", "m1"]) == 2
    assert desk.dropped == []
    assert "--yes" in capsys.readouterr().err


def test_what_was_agreed_to_is_dropped(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["dead-letters", "drop", "m1", "--yes"]) == 0
    assert desk.dropped == ["m1"]
    assert "forgot 1" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["replay"], ["drop"], ["replay", "m1", "--all"], ["show"]])
def test_what_is_meant_must_be_said(desk: Desk, arguments: list[str]) -> None:
    """`replay` alone is not everything."""
    with pytest.raises(SystemExit) as raised:
        execute(["dead-letters", *arguments])

    assert raised.value.code == 2
    assert desk.asked == []
