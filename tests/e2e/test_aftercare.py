"""What happens to turns after they were sent: judged, edited, deleted; while the daemon runs and while it does not."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tailer.demo.stage.player import play
from tests.e2e.daemon import Daemon, langfuse_settings, start
from tests.e2e.databases import Databases
from tests.e2e.expectations import Traffic, place, sent_spans
from tests.e2e.playing import QUICK, turns_done
from tests.fakes.langfuse import FakeLangfuse, Route, answer

EMAIL = "ada.lovelace@example.org"
THUMBS_DOWN = {"rating": "thumbsDown", "tag": "inaccurate", "text": f"Ask {EMAIL}"}


@dataclass(frozen=True, slots=True)
class Afterwards:
    """A daemon that has sent every turn of some traffic."""

    databases: Databases
    traffic: Traffic
    fake: FakeLangfuse
    daemon: Daemon

    async def write(
        self, fields: Mapping[str, Any], *, by_user: bool = False, text: str | None = None
    ) -> None:
        """Change rows as LibreChat does, and wait until that was seen through."""
        chosen: dict[str, Any] = {"isCreatedByUser": by_user}
        if text is not None:
            chosen["text"] = text
        await self.databases.source["messages"].update_many(
            chosen, {"$set": {**fields, "updatedAt": datetime.now(UTC)}}
        )
        await self.done()

    async def done(self) -> None:
        """Return once everything written so far was seen through."""
        await self.databases.wait_until_done(self.daemon.must_run)

    def score(self, score_id: str) -> object:
        """The value of a score, None where there is none."""
        return (self.fake.score(score_id) or {}).get("value")

    def edits(self) -> list[tuple[str, str, Any]]:
        """Trace, kind and text of each edit that is shown."""
        return [
            (trace_id, str(event.metadata["edited"]), event.output)
            for trace_id in self.fake.trace_ids()
            for event in sent_spans(self.fake.trace(trace_id)).of("event")
        ]


@asynccontextmanager
async def sent(
    databases: Databases, directory: Path, name: str = "01-single-turn", **settings: str
) -> AsyncIterator[Afterwards]:
    """Everything of a recording has been sent; the daemon goes on running."""
    traffic = place(name, datetime.now(UTC) - timedelta(seconds=10))
    async with FakeLangfuse() as fake:
        all_settings = {**databases.settings, **QUICK, **langfuse_settings(fake.url), **settings}
        async with start(all_settings, directory=directory) as daemon:
            await daemon.wait_until_ready()
            await play(traffic.recording, databases.source, speed=None)
            await databases.wait_until_done(daemon.must_run)
            assert {turn.trace_id for turn in traffic.turns()} <= set(fake.trace_ids())
            yield Afterwards(databases, traffic, fake, daemon)
            assert fake.violations == []
            assert fake.duplicates() == []
            if daemon.process.returncode is None:
                daemon.terminate()
            assert await daemon.exit_code() == 0


def part(text: str) -> dict[str, Any]:
    """The parts of an answer."""
    return {"content": [{"type": "text", "text": text}]}


@pytest.mark.parametrize("content", ["full", "masked", "none"])
async def test_feedback_and_edits_show_no_more_text_than_their_turn(
    content: str, databases: Databases, tmp_path: Path
) -> None:
    """The tag is LibreChat's own word and lengths are numbers; text and correction obey the content policy."""
    text = f"Now it is {EMAIL}"
    async with sent(databases, tmp_path, TAILER_CONTENT=content) as after:
        await after.write({"feedback": THUMBS_DOWN, **part(text)})
        ((trace_id, which, shown),) = after.edits()
        scores = {score["id"].partition("-")[0]: score for score in after.fake.scores.posted}
        (event,) = sent_spans(after.fake.trace(trace_id)).of("event")

    (turn,) = after.traffic.turns()
    assert (trace_id, which) == (turn.trace_id, "answer")
    assert event.metadata["old_characters"] == str(len(turn.answer or ""))
    assert event.metadata["new_characters"] == str(len(text))
    assert (scores["feedback"]["value"], scores["feedback"]["traceId"]) == (False, trace_id)
    comment = scores["feedback"]["comment"]
    match content:
        case "full":
            assert (comment, shown) == (f"inaccurate — Ask {EMAIL}", text)
            assert scores["correction"]["value"] == text
        case "masked":
            assert comment.startswith("inaccurate — Ask ")
            assert shown.startswith("Now it is ")
            assert scores["correction"]["value"] == shown
            assert EMAIL not in f"{comment} {shown}"
        case _:
            assert (comment, shown) == ("inaccurate", None)
            assert "correction" not in scores


async def test_keys_that_are_revoked_while_thumbs_are_clicked_show_everywhere_and_lose_nothing(
    databases: Databases, tmp_path: Path
) -> None:
    """Nothing but the thumb is on its way: the probe, the metric behind the alert and the log say so all the same,
    turns that come wait, and when the keys are back all of it arrives once."""
    async with sent(databases, tmp_path) as after:
        daemon, fake = after.daemon, after.fake
        fake.faults.add(answer(401, route=Route.ANY, times=None))
        change = {"$set": {"feedback": THUMBS_DOWN, "updatedAt": datetime.now(UTC)}}
        await databases.source["messages"].update_many({"isCreatedByUser": False}, change)
        assert "LANGFUSE_SECRET_KEY" in await daemon.wait_until_ready(status=503)
        later = place("02-multi-turn", datetime.now(UTC))
        await play(later.recording, databases.source, speed=None)
        await daemon.wait_for_metrics(
            lambda metrics: metrics.value("tailer_export_requests_total", result="auth") >= 1
        )
        metrics = await daemon.metrics()
        assert metrics.value("tailer_export_paused") == 1
        assert len(daemon.lines("delivery_paused")) == 1

        fake.faults.clear()
        await after.done()
        await daemon.wait_until_ready()
        assert (await daemon.metrics()).value("tailer_export_paused") == 0
        assert len(daemon.lines("delivery_resumed")) == len(daemon.lines("delivery_paused")) == 1
        (turn,) = after.traffic.turns()
        assert after.score(f"feedback-{turn.trace_id}") is False
        assert {each.trace_id for each in later.turns()} < set(fake.trace_ids())


async def test_scores_that_are_not_valid_stop_no_turn(databases: Databases, tmp_path: Path) -> None:
    """A 400 for scores alone: it is told and counted, and the turns of the day flow."""
    async with sent(databases, tmp_path) as after:
        ways = (Route.SCORES, Route.EVENTS)
        after.fake.faults.add(*(answer(400, route=way, times=None) for way in ways))
        await after.write({"feedback": THUMBS_DOWN})
        later = place("02-multi-turn", datetime.now(UTC))
        await play(later.recording, databases.source, speed=None)
        await after.done()

        metrics = await after.daemon.metrics()
        assert metrics.value("tailer_annotations_failed_total", operation="put_score") == 1
        assert metrics.value("tailer_export_paused") == 0
        assert len(after.daemon.lines("annotation_failed")) == 1
        assert {each.trace_id for each in later.turns()} < set(after.fake.trace_ids())


async def test_each_edit_is_shown_once_and_one_that_changes_nothing_never(
    databases: Databases, tmp_path: Path
) -> None:
    """LibreChat saves rows again and again; only another text is another edit; the correction is the newest."""
    async with sent(databases, tmp_path) as after:
        for text in ("second version", "second version", "third version"):
            await after.write(part(text))

        assert [(which, text) for _, which, text in after.edits()] == [
            ("answer", "second version"),
            ("answer", "third version"),
        ]
        (trace_id,) = {trace_id for trace_id, _, _ in after.edits()}
        assert after.score(f"correction-{trace_id}") == "third version"


async def test_an_edited_question_shows_in_the_traces_of_all_its_answers(
    databases: Databases, tmp_path: Path
) -> None:
    """Three answers to one question: three events, and no correction, which is for answers."""
    async with sent(databases, tmp_path, "03-regenerate") as after:
        await after.write({"text": "Tell me another"}, by_user=True, text="Tell me a joke")
        asked = {turn.trace_id for turn in after.traffic.turns() if turn.question == "Tell me a joke"}

        assert len(asked) == 3
        assert {trace_id for trace_id, which, _ in after.edits() if which == "question"} == asked
        assert {text for _, _, text in after.edits()} == {"Tell me another"}
        assert after.fake.scores.posted == []


async def test_what_is_switched_off_is_not_followed(databases: Databases, tmp_path: Path) -> None:
    """Neither scores nor edits; what was sent stays as it was."""
    async with sent(databases, tmp_path, TAILER_FEEDBACK="false", TAILER_EDITS="false") as after:
        before = len(after.fake.spans)
        await after.write({"feedback": THUMBS_DOWN})
        await after.write(part("another text"))

        assert after.fake.scores.posted == []
        assert len(after.fake.spans) == before


async def test_scores_wait_for_a_langfuse_that_is_away(databases: Databases, tmp_path: Path) -> None:
    """They are repeated until they are taken, and stand there once."""
    async with sent(databases, tmp_path) as after:
        after.fake.faults.add(answer(503, route=Route.SCORES, times=3))
        await after.write({"feedback": THUMBS_DOWN})

        assert after.fake.requests[Route.SCORES, "503"] == 3
        assert len(after.fake.scores.current) == 1


async def test_what_happens_while_the_daemon_is_away_is_followed_after_its_start(
    databases: Databases, tmp_path: Path
) -> None:
    """Feedback, an edit and a deletion, known from the records of what was sent: the rows are partly gone."""
    settings = {"TAILER_DELETIONS": "delete"}
    async with sent(databases, tmp_path, "02-multi-turn", **settings) as after:
        first, second, third = after.traffic.turns()
        after.daemon.terminate()
        assert await after.daemon.exit_code() == 0
        messages = databases.source["messages"]
        now = datetime.now(UTC)
        await messages.update_one(
            {"messageId": first.response_id}, {"$set": {"feedback": THUMBS_DOWN, "updatedAt": now}}
        )
        await messages.update_one(
            {"messageId": second.response_id}, {"$set": {**part("edited while away"), "updatedAt": now}}
        )
        await messages.delete_many({"messageId": {"$in": [third.response_id, third.parent_id]}})
        again = {**databases.settings, **QUICK, **langfuse_settings(after.fake.url), **settings}
        async with start(again, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await databases.wait_until_done(daemon.must_run)
            metrics = await daemon.metrics()
            daemon.terminate()
            assert await daemon.exit_code() == 0

        assert after.score(f"feedback-{first.trace_id}") is False
        assert after.edits() == [(second.trace_id, "answer", "edited while away")]
        assert after.fake.state.spans.deleted_trace_ids == [third.trace_id]
        assert {first.trace_id, second.trace_id} <= set(after.fake.trace_ids())
        assert turns_done(metrics, "deletion_followed") == 1


async def test_a_row_that_is_deleted_before_it_was_read_is_counted_and_not_sent(
    databases: Databases, tmp_path: Path
) -> None:
    """Within the settle time: where deletions are followed nothing is sent, not even what it cost."""
    traffic = place("01-single-turn", datetime.now(UTC))
    async with FakeLangfuse() as fake:
        settings = {
            **databases.settings,
            **QUICK,
            **langfuse_settings(fake.url),
            "TAILER_DELETIONS": "delete",
        }
        async with start({**settings, "TAILER_SETTLE_SECONDS": "2"}, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await play(traffic.recording, databases.source, speed=None)
            await databases.source["messages"].delete_many({})
            await databases.wait_until_done(daemon.must_run)
            metrics = await daemon.metrics()
            daemon.terminate()
            assert await daemon.exit_code() == 0

    assert fake.trace_ids() == []
    assert fake.state.spans.deleted_trace_ids == []
    assert turns_done(metrics, "deleted") >= 1
    assert turns_done(metrics, "deletion_unknown") == 2
