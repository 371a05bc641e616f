"""What the stream reported about one turn, gathered from the open entry and from the memory."""

from dataclasses import field

from tailer.core.light_dataclass import light_dataclass
from tailer.core.stream.entries import Entry
from tailer.core.stream.hints import REPLAY, Stream
from tailer.core.stream.memory import FirstTitle, StreamMemory, ToldSettings
from tailer.core.turn.record import TurnRecord


@light_dataclass(frozen=True, slots=True)
class Told:
    """What the stream reported about one turn.

    `followed`: both rows were inserted while the stream was followed, so it would have reported an edit. `first_text`
    is the question as it was first written, None if unknown; `question_edited` and `answer_edited` say that the text
    was changed since. `stopped` says that the answer was first stored as a stopped one. `title` is the title as it was
    first stored; `title_followed`: the stream would have reported it. `settings` are None if the stream was not
    followed.
    """

    followed: bool = False
    first_text: str | None = field(default=None, repr=False)
    question_edited: bool = False
    answer_edited: bool = False
    stopped: bool = False
    title_followed: bool = False
    title: FirstTitle | None = None
    settings: ToldSettings | None = None


def tell(memory: StreamMemory, entry: Entry, record: TurnRecord) -> Told:
    """What is known about the turn of an entry."""
    question, response, conversation = record.question, record.response, record.conversation
    rows = [row.key for row in (question, response) if row is not None]
    first_text, edited = (None, False) if question is None else memory.question_of(question.key)
    if REPLAY in entry.changed:
        # What was refused may have been mended since: it is sent as it stands.
        first_text = None
    settings = None
    if conversation is not None and response is not None and response.created_milliseconds is not None:
        settings = memory.settings_of(
            conversation.key, at_milliseconds=response.created_milliseconds, answer=response.key
        )
    return Told(
        followed=all(memory.follows(Stream.MESSAGES, key) for key in rows),
        first_text=first_text,
        question_edited=edited,
        answer_edited=entry.edited,
        stopped=entry.stopped,
        title_followed=conversation is not None and memory.follows(Stream.CONVERSATIONS, conversation.key),
        title=None if conversation is None else memory.title_of(conversation.key),
        settings=settings,
    )
