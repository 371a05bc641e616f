"""The facts of a turn and of spending: what the rules, the routes and the tags of an operator can name."""

from collections.abc import Mapping, Sequence
from typing import Final

from tailer.core.librechat.messages import Message
from tailer.core.policy.policies import UNREAD, Fact, Facts, Unread, values_of
from tailer.core.policy.users import User
from tailer.core.trace.spending import Spending
from tailer.core.turn.assembly import saved_agent_id
from tailer.core.turn.turns import Turn

_TAG_CHARACTERS: Final = 200
"""The langfuse package drops longer ones."""
_MOST_SHOWN: Final = 50
"""Groups, or tags of a conversation, that a trace shows: every span repeats them."""


def facts_of_turn(turn: Turn) -> Facts:
    """The facts of a turn, None where it has none. Those of a row that was not read are unread."""
    record, anchor = turn.record, turn.anchor
    conversation = record.conversation
    return {
        Fact.ENDPOINT: anchor.endpoint or (conversation.endpoint if conversation is not None else None),
        Fact.MODEL: turn.model,
        Fact.AGENT: record.agent.agent_id
        if record.agent is not None
        else saved_agent_id(record.response, conversation),
        Fact.USER: anchor.user_id,
        Fact.TENANT: anchor.tenant_id,
        **_facts_of_user(record.user),
        Fact.TAG: conversation.tags if conversation is not None else UNREAD,
    }


def facts_of_row(message: Message) -> Facts:
    """What a row alone tells of its turns, for a change that came after they were sent. A question does not say which
    endpoint or agent answered it."""
    agent_id = saved_agent_id(message, None)
    is_answer = not message.created_by_user
    return {
        **dict.fromkeys(Fact, UNREAD),
        Fact.ENDPOINT: message.endpoint if is_answer and message.endpoint is not None else UNREAD,
        Fact.AGENT: agent_id if is_answer and message.model is not None else UNREAD,
        Fact.USER: message.user_id,
        Fact.TENANT: message.tenant_id,
    }


def facts_of_spending(spending: Spending) -> Facts:
    """What is known of spending that belongs to no chat: who spent, and on which model. The conversation of a deleted
    turn is not read."""
    models = [entry.model for entry in spending.transactions if entry.model is not None]
    return {
        **dict.fromkeys(Fact),
        Fact.MODEL: models[0] if models else None,
        Fact.USER: spending.user_id,
        Fact.TENANT: spending.tenant_id,
        **_facts_of_user(spending.user),
        Fact.TAG: UNREAD if spending.is_deleted_turn else None,
    }


def _facts_of_user(user: User | None) -> dict[Fact, str | tuple[str, ...] | Unread | None]:
    """The role and groups of a user; unread without a row."""
    groups = user.groups if user is not None else None
    return {
        Fact.ROLE: user.role if user is not None else UNREAD,
        Fact.GROUP: groups if groups is not None else UNREAD,
    }


def fact_tags(facts: Facts, wanted: Sequence[Fact]) -> list[str]:
    """The tags of the facts that are to become some: `fact:value`, one for each value, however long."""
    return [f"{fact.value}:{value}" for fact in wanted for value in values_of(facts, fact)[:_MOST_SHOWN]]


def cut_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Tags as they may be sent. They are cut after they were masked: half a secret looks like none."""
    return tuple([tag[:_TAG_CHARACTERS] for tag in tags])


def with_role(metadata: Mapping[str, str], facts: Facts) -> Mapping[str, str]:
    """A trace's metadata with the role and the groups of its user, where they are read."""
    entries = {"user_role": values_of(facts, Fact.ROLE), "user_groups": values_of(facts, Fact.GROUP)}
    known = {name: ", ".join(values[:_MOST_SHOWN]) for name, values in entries.items() if values}
    return {**metadata, **known} if known else metadata
