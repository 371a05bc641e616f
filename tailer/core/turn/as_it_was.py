"""A turn as it was when it happened, if the stream or the row says so, with marks on what is known only from later.

LibreChat overwrites what a turn had: the conversation's settings with the next question, a text when a person edits it.
A turn that is read at once is right unless a change came first; a turn that a backfill reads may be wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from tailer.core.librechat.conversations import Conversation, read_setting_changes
from tailer.core.librechat.messages import Message, merge_quotes
from tailer.core.librechat.transactions import Transaction
from tailer.core.stream.memory import FirstTitle, ToldSettings
from tailer.core.stream.telling import Told
from tailer.core.turn.record import Then, TurnRecord
from tailer.core.turn.usage import ANSWERING_CONTEXTS, TITLE_CONTEXT

_OWN_SAVES_MILLISECONDS: Final = 1_000
"""How long after a turn LibreChat itself still saves its rows."""
_CHARGED_AFTER_MILLISECONDS: Final = 200
"""How much later than a generated title its charge may be stored: some releases do not wait for it."""
_CONTEXT: Final = "maxContextTokens"
SETTINGS_MARK: Final = "settings"
QUESTION_MARK: Final = "question_text"
ANSWER_MARK: Final = "answer_text"
_FIRST_WRITTEN: Final = "edited before it was read; shown as first written"
_EDITED: Final = "edited before it was read"
_PERHAPS_EDITED: Final = "saved again after the turn, perhaps edited"
_READ_LATER: Final = "as of the reading; the conversation went on after the turn"


def restore(
    record: TurnRecord,
    told: Told,
    *,
    finished_milliseconds: int | None = None,
    question_touches: tuple[int, ...] = (),
) -> TurnRecord:
    """The record with texts and settings of the turn's own time, and with a mark for each that may be from later.

    The times are those that the stream reported of the turn's rows.
    """
    marks: dict[str, str] = {}
    title = _generated_title(record, told)
    question = _restore_question(record, told, marks)
    conversation = _restore_settings(record, told, marks)
    response = record.response
    if response is not None:
        if told.answer_edited:
            if not _was_ending(response) and not _was_continued(response, record.transactions):
                marks[ANSWER_MARK] = _EDITED
        elif not told.followed and _was_saved_again(response, finished_milliseconds):
            marks[ANSWER_MARK] = _PERHAPS_EDITED
    agent = record.agent
    if agent is not None and _had_no_instructions(response):
        agent = replace(agent, instructions=None)
    return replace(
        record,
        question=question,
        conversation=conversation,
        agent=agent,
        finished_milliseconds=finished_milliseconds,
        question_touches=question_touches,
        then=Then(
            # Old releases store an answer in the making in the same shape; those end with their text in `text`.
            stopped=told.stopped and response is not None and not response.text,
            first_title=None if title is None else title.text,
            titled_milliseconds=None if title is None else title.written_milliseconds,
            title_read_later=title is None and (told.title is not None or not told.title_followed),
            marks=marks,
        ),
    )


def _generated_title(record: TurnRecord, told: Told) -> FirstTitle | None:
    """The first title, unless a person gave it: one that was stored before the model was charged for its own."""
    charged = [
        entry.created_milliseconds
        for entry in record.transactions
        if entry.context == TITLE_CONTEXT and entry.created_milliseconds is not None
    ]
    title = told.title
    if title is None or not charged:
        return title
    is_earlier = title.written_milliseconds < min(charged) - _CHARGED_AFTER_MILLISECONDS
    return None if is_earlier else title


def _restore_question(record: TurnRecord, told: Told, marks: dict[str, str]) -> Message | None:
    question = record.question
    if question is None:
        return None
    if told.question_edited:
        if told.first_text is None:
            marks[QUESTION_MARK] = _EDITED
        elif (first := merge_quotes(question.quotes, told.first_text)) != question.text:
            marks[QUESTION_MARK] = _FIRST_WRITTEN
            return replace(question, text=first)
    elif not told.followed:
        # A question is saved again with each of its answers.
        answered = [sibling.created_milliseconds or 0 for sibling in record.siblings]
        if _was_saved_again(question, max(answered, default=0)):
            marks[QUESTION_MARK] = _PERHAPS_EDITED
    return question


def _was_ending(response: Message) -> bool:
    """Whether an answer was stopped and saved only while it ended: until 0.7.8 LibreChat stores it at the stop, and
    once more with the words that had come meanwhile."""
    created, updated = response.created_milliseconds, response.updated_milliseconds
    if response.finish_reason != "incomplete" or created is None or updated is None:
        return False
    return updated <= created + _OWN_SAVES_MILLISECONDS


def _was_continued(response: Message, transactions: Sequence[Transaction]) -> bool:
    """Whether a model went on with an answer that was stored already ("Continue" until 0.7.8), and was charged for it
    before the answer was saved once more."""
    created, updated = response.created_milliseconds, response.updated_milliseconds
    if response.parts or created is None or updated is None:
        return False
    return any(
        entry.context in ANSWERING_CONTEXTS and created < (entry.created_milliseconds or 0) <= updated
        for entry in transactions
    )


def _was_saved_again(message: Message, last_reason: int | None) -> bool:
    """Whether a row was saved so long after its last known reason that a person may have edited it."""
    if message.feedback is not None or message.updated_milliseconds is None:
        # Feedback moves the time too and hides what came before.
        return False
    reason = max(message.created_milliseconds or 0, last_reason or 0)
    return message.updated_milliseconds > reason + _OWN_SAVES_MILLISECONDS


def _restore_settings(record: TurnRecord, told: Told, marks: dict[str, str]) -> Conversation | None:
    conversation, response = record.conversation, record.response
    if conversation is None:
        return None
    if told.settings is not None:
        conversation = _apply(conversation, told.settings)
        if told.settings.unknown:
            names = ", ".join(sorted(told.settings.unknown))
            marks[SETTINGS_MARK] = f"changed since the turn and left out: {names}"
    elif record.conversation_went_on:
        marks[SETTINGS_MARK] = _READ_LATER
    if record.agent is not None and not record.agent_exact:
        marks.setdefault(SETTINGS_MARK, "as of the reading; the agent's version at the turn is not stored")
    if response is None:
        return conversation
    prompt = None if _had_no_instructions(response) else conversation.prompt_prefix
    settings = _with_context(conversation.settings, response.context_tokens)
    if settings is conversation.settings and prompt == conversation.prompt_prefix:
        return conversation
    return replace(conversation, settings=settings, prompt_prefix=prompt)


def _with_context(settings: Mapping[str, object], context_tokens: int | None) -> Mapping[str, object]:
    """The settings with the size of the context that the answer was given; as they are where they say so already."""
    if context_tokens is None:
        return settings
    known = settings.get(_CONTEXT)
    if known == context_tokens and type(known) is int:
        return settings
    return {**settings, _CONTEXT: context_tokens}


def _apply(conversation: Conversation, settings: ToldSettings) -> Conversation:
    changes: Mapping[str, object | None] = {**settings.values, **dict.fromkeys(settings.unknown)}
    return read_setting_changes(conversation, changes) if changes else conversation


def _had_no_instructions(response: Message | None) -> bool:
    """The row counts the tokens of the instructions that were sent (0.8.7)."""
    return response is not None and response.instruction_tokens == 0
