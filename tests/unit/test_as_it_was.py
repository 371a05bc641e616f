"""A turn is shown as it was: what was changed before it was read is restored where the stream told it, else marked."""

from typing import Any

import pytest

from tailer.core.identity import DocumentKey
from tailer.core.librechat.conversations import Conversation
from tailer.core.stream.entries import Entry, EntryKey
from tailer.core.stream.hints import Interest, Operation, Stream
from tailer.core.stream.memory import StreamMemory
from tailer.core.stream.open_turns import OpenTurns
from tailer.core.stream.telling import tell
from tailer.core.turn.as_it_was import restore
from tailer.core.turn.record import Sibling, TurnRecord
from tests.unit.documents import (
    MISSING,
    agent,
    agent_row,
    assemble,
    change,
    completion_row,
    conversation,
    conversation_row,
    export,
    message,
    moment,
    object_id,
    old_response_row,
    prompt_row,
    response_row,
    select,
    stamp,
    trace_of,
    traces_of,
    turn_record,
    usage_metadata,
    user_row,
)
from tests.unit.documents import (
    row as row_of,
)

CHAT = str(object_id(0))
ASKED, ANSWERED = user_row(0), response_row(2)
PRESET = {"temperature": 0.3, "promptPrefix": "Be brief.", "stop": ["END"]}


def entry() -> Entry:
    """The open entry of the answer."""
    key = EntryKey(Interest.RESPONSE, DocumentKey(str(ANSWERED["_id"])))
    return Entry(key, opened_seconds=0, due_seconds=0, work=Interest.RESPONSE)


def following(seconds: int = -60) -> StreamMemory:
    """A memory that followed both streams before the turn began."""
    memory = StreamMemory()
    for stream in Stream:
        memory.follow(stream, int(moment(seconds).timestamp()))
    return memory


def chat_now(**fields: object) -> Conversation:
    return conversation(conversation_row(_id=CHAT, **fields))


def record_of(chat: Conversation | None = None, **fields: Any) -> TurnRecord:
    return turn_record(ANSWERED, ASKED, conversation=chat or chat_now(), **fields)


def restored(memory: StreamMemory, record: TurnRecord, own: Entry | None = None) -> TurnRecord:
    return restore(record, tell(memory, own or entry(), record))


def write_settings(memory: StreamMemory, at: float, settings: dict[str, object], *removed: str) -> None:
    memory.note(
        Stream.CONVERSATIONS,
        change(CHAT, Operation.UPDATE, written=stamp(at), changed={*settings, *removed}, settings=settings),
    )


def insert_chat(memory: StreamMemory, **settings: object) -> None:
    # The server's clock, which may be anywhere.
    memory.note(Stream.CONVERSATIONS, change(CHAT, written=stamp(99_999), settings=settings))


def test_settings_of_a_later_question_are_not_those_of_the_turn() -> None:
    memory = following()
    insert_chat(memory, temperature=0.5, model="gpt-4o")
    write_settings(memory, 3, PRESET)
    found = restored(memory, record_of(chat_now(**PRESET)))

    (call,) = [item for item in trace_of(found).observations if item.type == "generation"]
    assert call.model_parameters == {"temperature": 0.5}
    assert [item["role"] for item in call.input] == ["user"]  # type: ignore[attr-defined]
    assert found.then.marks == {}


def test_settings_that_came_with_the_question_are_those_of_the_turn() -> None:
    memory = following()
    insert_chat(memory, temperature=0.5)
    write_settings(memory, 1, PRESET)
    found = restored(memory, record_of(chat_now(**PRESET)))

    assert found.conversation is not None
    assert found.conversation.settings == {"temperature": 0.3, "stop": ["END"]}
    assert found.conversation.prompt_prefix == "Be brief."
    assert found.then.marks == {}


def test_a_setting_that_was_taken_away_since_is_there_again() -> None:
    memory = following()
    insert_chat(memory, **PRESET)
    write_settings(memory, 3, {"model": "o3"}, "temperature", "stop", "promptPrefix")
    found = restored(memory, record_of(chat_now(temperature=MISSING, model="o3")))

    assert found.conversation is not None
    assert found.conversation.settings == {"temperature": 0.3, "stop": ["END"]}
    assert (found.conversation.prompt_prefix, found.conversation.model) == ("Be brief.", None)


def test_what_a_changed_setting_was_before_is_left_out_and_named_where_nobody_told() -> None:
    memory = following()
    write_settings(memory, 3, PRESET)
    found = restored(memory, record_of(chat_now(**PRESET, topP=0.9)))

    assert found.conversation is not None
    assert found.conversation.settings == {"topP": 0.9}
    assert found.conversation.prompt_prefix is None
    assert found.then.marks == {
        "settings": "changed since the turn and left out: promptPrefix, stop, temperature"
    }
    assert trace_of(found).metadata["settings"] == found.then.marks["settings"]


def test_settings_too_large_to_travel_are_unknown_later() -> None:
    memory = following()
    memory.note(Stream.CONVERSATIONS, change(CHAT, written=stamp(0), settings=None))
    write_settings(memory, 3, {"temperature": 1})

    assert "temperature" in restored(memory, record_of(chat_now(temperature=1))).then.marks["settings"]


@pytest.mark.parametrize(("went_on", "marked"), [(True, True), (False, False)])
def test_a_backfilled_turn_says_whose_settings_it_shows(went_on: bool, marked: bool) -> None:  # noqa: FBT001
    """The last turn of a conversation still has its own."""
    found = restored(StreamMemory(), record_of(conversation_went_on=went_on))

    assert ("settings" in found.then.marks) is marked
    assert trace_of(found).metadata.get("settings") == found.then.marks.get("settings")


def test_a_gap_in_the_stream_ends_what_it_told() -> None:
    memory = following()
    insert_chat(memory, temperature=0.5)
    memory.follow(Stream.CONVERSATIONS, int(moment(1_000).timestamp()))

    assert "settings" in restored(memory, record_of(conversation_went_on=True)).then.marks


def test_settings_from_before_a_gap_are_not_those_after_it() -> None:
    """What was written in the gap is unknown."""
    memory = following()
    insert_chat(memory, temperature=0.5)
    memory.follow(Stream.CONVERSATIONS, int(moment(-10).timestamp()))
    write_settings(memory, 3, {"temperature": 0.9})
    found = restored(memory, record_of(chat_now(temperature=0.9)))

    assert found.conversation is not None
    assert found.conversation.settings == {}
    assert found.then.marks == {"settings": "changed since the turn and left out: temperature"}


def test_the_row_knows_its_context_window_and_whether_there_were_instructions() -> None:
    """`metadata.contextUsage.breakdown` (0.8.7), also in a backfill."""
    metadata = usage_metadata(1, 2)
    metadata["contextUsage"]["breakdown"] = {"maxContextTokens": 1500, "instructionTokens": 0}
    record = turn_record(
        response_row(metadata=metadata),
        ASKED,
        conversation=chat_now(maxContextTokens=121_125, **PRESET),
        agent=agent(agent_row()),
    )
    found = restored(StreamMemory(), record)

    assert found.conversation is not None
    assert found.conversation.settings["maxContextTokens"] == 1500
    assert found.conversation.prompt_prefix is None
    assert found.agent is not None
    assert found.agent.instructions is None


def test_an_unanswered_question_keeps_the_settings_of_its_conversation() -> None:
    found = restored(following(), turn_record(None, ASKED, conversation=chat_now(**PRESET)))

    assert found.conversation == chat_now(**PRESET)


def test_an_edited_question_is_shown_as_first_written() -> None:
    memory = following()
    memory.note(Stream.MESSAGES, change(str(ASKED["_id"]), text="What is the capital of France?"))
    memory.note(Stream.MESSAGES, change(str(ASKED["_id"]), Operation.UPDATE, changed={"text", "tokenCount"}))
    edited = turn_record(ANSWERED, {**ASKED, "text": "edited"}, conversation=chat_now())
    trace = trace_of(restored(memory, edited))

    assert trace.root.input == "What is the capital of France?"
    assert trace.metadata["question_text"] == "edited before it was read; shown as first written"


def test_an_edited_question_that_nobody_remembers_is_marked() -> None:
    memory = following()
    memory.note(Stream.MESSAGES, change(str(ASKED["_id"]), Operation.UPDATE, changed={"text", "tokenCount"}))
    trace = trace_of(restored(memory, turn_record(ANSWERED, {**ASKED, "text": "edited"})))

    assert trace.root.input == "edited"
    assert trace.metadata["question_text"] == "edited before it was read"


@pytest.mark.parametrize(
    ("question", "response", "marked"),
    [
        ({"updatedAt": moment(2.02)}, {"updatedAt": moment(2.03)}, set()),
        ({"updatedAt": moment(60)}, {}, {"question_text"}),
        ({}, {"updatedAt": moment(60)}, {"answer_text"}),
        # A thumb moves the time too.
        ({}, {"updatedAt": moment(60), "feedback": {"rating": "thumbsUp"}}, set()),
    ],
)
def test_a_backfilled_text_that_was_saved_again_later_is_marked(
    question: dict[str, object], response: dict[str, object], marked: set[str]
) -> None:
    answered = Sibling("r", stamp(2))
    record = turn_record(response_row(2, **response), user_row(0, **question), siblings=(answered,))

    assert restored(StreamMemory(), record).then.marks.keys() == marked
    assert restored(following(), record).then.marks == {}


def test_an_answer_edited_by_hand_before_it_was_read_is_marked() -> None:
    """An edit counts the tokens anew; a late result of a tool does not, and an answer that is finished is no edit."""
    turns = OpenTurns(settle_seconds=3, park_seconds=60)
    memory = following()
    edited, patched, finished = (str(object_id(2)) for _ in range(3))
    for key in (edited, patched):
        turns.open(Interest.RESPONSE, change(key, created_by_user=False), 0, age_seconds=0)
    turns.open(Interest.RESPONSE, change(finished, created_by_user=False, unfinished=True), 0, age_seconds=0)
    for key, changed in (
        (edited, {"content", "tokenCount"}),
        (patched, {"content", "attachments"}),
        (finished, {"content", "tokenCount", "unfinished"}),
    ):
        turns.open(Interest.RESPONSE, change(key, Operation.UPDATE, changed=changed), 0, age_seconds=0)
    marks = {
        found.key.document_key: restored(memory, record_of(), found).then.marks
        for found in turns.take_due(10, 3)
    }

    assert marks == {edited: {"answer_text": "edited before it was read"}, patched: {}, finished: {}}


def saved_once_more() -> Entry:
    """What the stream told of an answer whose text and tokens were saved again."""
    turns = OpenTurns(settle_seconds=3, park_seconds=60)
    key = str(object_id(2))
    turns.open(Interest.RESPONSE, change(key, created_by_user=False), 0, age_seconds=0)
    saving = change(key, Operation.UPDATE, changed={"text", "tokenCount"})
    turns.open(Interest.RESPONSE, saving, 0, age_seconds=0)
    (entry,) = turns.take_due(10, 1)
    return entry


@pytest.mark.parametrize(("saved", "marks"), [(2.05, {}), (9, {"answer_text": "edited before it was read"})])
def test_a_stopped_answer_that_is_saved_once_more_as_it_ends_was_not_edited(
    saved: float, marks: dict[str, str]
) -> None:
    """Seen at 0.7.7, 24 ms after the stop: with one word more, and its tokens counted anew."""
    entry = saved_once_more()
    response = response_row(2, finish_reason="incomplete", updatedAt=moment(saved))

    assert restored(following(), turn_record(response, user_row()), entry).then.marks == marks


@pytest.mark.parametrize(
    ("charged", "marks"), [(3.9, {}), (1.9, {"answer_text": "edited before it was read"})]
)
def test_an_answer_that_was_continued_before_it_was_read_was_not_edited(
    charged: float, marks: dict[str, str]
) -> None:
    """Until 0.7.8: the model is charged for what it adds, and then the row is saved."""
    entry = saved_once_more()
    response = response_row(2, content=MISSING, text="Paris. And more.", updatedAt=moment(4))
    rows = [prompt_row(20, createdAt=moment(charged)), completion_row(5, createdAt=moment(charged))]

    assert restored(following(), turn_record(response, user_row(), *rows), entry).then.marks == marks


def test_an_answer_first_stored_as_stopped_is_aborted_however_it_looks_later() -> None:
    """0.8.2 to 0.8.4 overwrite it within milliseconds."""
    turns = OpenTurns(settle_seconds=3, park_seconds=60)
    key = str(ANSWERED["_id"])
    turns.open(
        Interest.RESPONSE,
        change(key, created_by_user=False, unfinished=True, stopped=True),
        0,
        age_seconds=0,
    )
    turns.open(
        Interest.RESPONSE, change(key, Operation.UPDATE, changed={"unfinished", "text"}), 0, age_seconds=0
    )
    (own,) = turns.take_due(10, 1)
    looks_complete = turn_record(old_response_row(2, text="", tokenCount=33), ASKED)
    trace = trace_of(restored(following(), looks_complete, own))

    assert trace.metadata["outcome"] == "aborted"
    assert trace_of(restored(following(), looks_complete)).metadata["outcome"] == "complete"


def test_an_answer_that_was_stored_while_it_was_written_is_complete_when_it_is_whole() -> None:
    """Old releases store it in the shape of a stopped one every few hundred milliseconds."""
    own = entry()
    own.stopped = True
    whole = turn_record(old_response_row(2, text="All of it", content=MISSING), ASKED)

    assert trace_of(restored(following(), whole, own)).metadata["outcome"] == "complete"


TITLED = [prompt_row(142, context="title")]


def test_a_title_is_shown_as_it_was_generated() -> None:
    """Not as somebody named the conversation since."""
    memory = following()
    insert_chat(memory)
    for at, name in ((2.5, "Capital"), (2.8, "Renamed")):
        memory.note(
            Stream.CONVERSATIONS,
            change(CHAT, Operation.UPDATE, written=stamp(at), changed={"title"}, title=name),
        )
    record = turn_record(ANSWERED, ASKED, *TITLED, conversation=chat_now(title="Renamed"))
    turn, title = traces_of(restored(memory, record))

    assert title.root.output == "Capital"
    assert (title.root.start_milliseconds, title.root.end_milliseconds) == (stamp(2), stamp(2.5))
    assert title.root.metadata["timing"] == "estimated"
    assert "title" not in title.root.metadata
    assert turn.metadata["conversation_title"] == "Renamed"


def test_a_name_that_a_person_gave_before_the_title_came_is_not_the_models() -> None:
    """The model's title overwrites it. It is stored after what it was charged for."""
    memory = following()
    insert_chat(memory)
    memory.note(
        Stream.CONVERSATIONS,
        change(CHAT, Operation.UPDATE, written=stamp(2.5), changed={"title"}, title="By hand"),
    )
    charged = prompt_row(142, context="title", createdAt=moment(2.9))
    record = turn_record(ANSWERED, ASKED, charged, conversation=chat_now(title="Capital"))
    _, title = traces_of(restored(memory, record))

    assert title.root.output == "Capital"
    assert title.root.metadata["title"] == "as of the reading, perhaps renamed"


def test_a_title_that_was_read_later_says_so() -> None:
    """Also where a rename was seen of a conversation whose beginning was not."""
    unseen = StreamMemory()
    renamed = following()
    renamed.follow(Stream.CONVERSATIONS, int(moment(1_000).timestamp()))
    renamed.note(
        Stream.CONVERSATIONS,
        change(CHAT, Operation.UPDATE, written=stamp(2_000), changed={"title"}, title="Renamed"),
    )
    record = turn_record(ANSWERED, ASKED, *TITLED, conversation=chat_now(title="Renamed"))
    for memory in (unseen, renamed):
        _, title = traces_of(restored(memory, record))

        assert title.root.metadata["title"] == "as of the reading, perhaps renamed"


def test_the_memory_is_bounded() -> None:
    memory = following()
    keys = [str(object_id(number)) for number in range(6_000)]
    for key in keys:
        memory.note(Stream.CONVERSATIONS, change(key, written=stamp(0), settings={"temperature": 1}))
        memory.note(Stream.MESSAGES, change(key, text="x" * 4_000))

    assert memory.question_of(keys[-1])[0] is not None  # type: ignore[arg-type]
    assert memory.question_of(keys[0])[0] is None  # type: ignore[arg-type]


VERSIONS = [
    agent_row(instructions="first", updatedAt=moment(-100)),
    agent_row(instructions="second", updatedAt=moment(1)),
    agent_row(instructions="third", updatedAt=moment(50)),
]


@pytest.mark.parametrize(
    ("row", "instructions", "exact"),
    [
        (agent_row(instructions="third", updatedAt=moment(50), versions=VERSIONS), "second", True),
        (agent_row(instructions="third", updatedAt=moment(1.5), versions=VERSIONS), "third", True),
        (agent_row(instructions="third", updatedAt=moment(50)), "third", False),
        (agent_row(instructions="third"), "third", True),
    ],
    ids=["a version of then", "unchanged since", "no versions", "no times"],
)
def test_an_agent_is_the_version_that_answered(
    row: dict[str, object], instructions: str, *, exact: bool
) -> None:
    found = agent(row)
    response, question = response_row(2, model=found.agent_id), ASKED
    rows = {item["messageId"]: row_of(item) for item in (response, question)}
    messages = {rows[item["messageId"]].key: message(item) for item in (response, question)}
    record = assemble(select(rows[response["messageId"]], rows), messages, chat_now(), (), found)

    assert record is not None
    assert record.agent is not None
    assert record.agent.instructions == instructions
    assert ("settings" in restored(following(), record).then.marks) is not exact
    assert export(record)


def test_conversations_with_the_same_settings_share_one_copy_of_them() -> None:
    """A memory of thousands of conversations holds the settings of a few presets."""
    memory = following()
    for number in range(3):
        preset = {"temperature": 0.5 if number < 2 else 1, "model": "gpt-4o"}
        memory.note(Stream.CONVERSATIONS, change(f"{number:024x}", written=stamp(0), settings=preset))

    first, second, third = (changes[0].values for changes in memory._settings.items.values())
    assert first is second
    assert first == {"temperature": 0.5, "model": "gpt-4o"}
    assert third == {"temperature": 1, "model": "gpt-4o"}
