"""What was read back for one turn, and what the stream reported about it."""

from collections.abc import Mapping
from dataclasses import field

from tailer.core.librechat.conversations import Agent, Conversation
from tailer.core.librechat.messages import Message
from tailer.core.librechat.transactions import Transaction
from tailer.core.light_dataclass import light_dataclass
from tailer.core.policy.users import User
from tailer.core.turn.copies import ALONE, Surroundings


@light_dataclass(frozen=True, slots=True)
class Sibling:
    """Another response to the same question, or another question in its place; `answered`: that question got an answer
    that is not a refusal. `model` is what a response's row names."""

    message_id: str
    created_milliseconds: int | None
    answered: bool = True
    model: str | None = None


@light_dataclass(frozen=True, slots=True)
class Then:
    """What is known about a turn's own time.

    `stopped`: the answer was first stored as a stopped one. `first_title`: the title as first stored, at
    `titled_milliseconds`, None if unknown. `title_read_later`: the title may differ from the generated one. `marks`
    tell the trace what is known only from later.
    """

    stopped: bool = False
    first_title: str | None = None
    titled_milliseconds: int | None = None
    title_read_later: bool = False
    marks: Mapping[str, str] = field(default_factory=dict)


UNKNOWN_THEN = Then()


@light_dataclass(frozen=True, slots=True)
class TurnRecord:
    """What was read back for one turn.

    `history` holds the ancestors of the question, oldest first, without those that were too much to read;
    `history_cut`: more of them are left out than `history_left_out` counts. `siblings` are all responses to the
    question, `question_siblings` all questions in its place; `billed_with` is the message id of another turn, in whose
    ledger the calls of this one are; `agent` answered, `agents` are all that the turn names, by id; `surroundings` tell
    whether the turn's own row is a copy. Times from the stream: `finished_milliseconds` when a later event made a
    partial row final, `question_touches` when the question was saved again, oldest first. `media` refers to uploaded
    files. `earlier_tokens` is the `tokenCount` of all rows before the question, None if it is not known.
    `conversation_went_on`: other rows came later; `agent_exact`: `agent` is the version that answered.
    """

    response: Message | None
    question: Message | None
    history: tuple[Message, ...] = ()
    history_left_out: int = 0
    history_cut: bool = False
    siblings: tuple[Sibling, ...] = ()
    question_siblings: tuple[Sibling, ...] = ()
    transactions: tuple[Transaction, ...] = ()
    billed_with: str | None = None
    conversation: Conversation | None = None
    agent: Agent | None = None
    agents: Mapping[str, Agent] = field(default_factory=dict)
    user: User | None = None
    finished_milliseconds: int | None = None
    question_touches: tuple[int, ...] = ()
    media: tuple[str, ...] = ()
    surroundings: Surroundings = ALONE
    earlier_tokens: int | None = None
    conversation_went_on: bool = False
    agent_exact: bool = True
    then: Then = UNKNOWN_THEN
