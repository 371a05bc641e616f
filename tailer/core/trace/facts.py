"""The facts of a turn and of spending: what the rules, the routes and the tags of an operator can name."""

from collections.abc import Mapping, Sequence
from typing import Final

from tailer.core.policy.policies import Fact, Facts, values_of
from tailer.core.trace.spending import Spending
from tailer.core.turn.assembly import saved_agent_id
from tailer.core.turn.turns import Turn

_TAG_CHARACTERS: Final = 200
"""The langfuse package drops longer ones."""


def facts_of_turn(turn: Turn) -> Facts:
    """The facts of a turn, None where nothing is known."""
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
        Fact.ROLE: record.user.role if record.user is not None else None,
        Fact.GROUP: record.user.groups if record.user is not None else None,
        Fact.TAG: conversation.tags if conversation is not None else None,
    }


def facts_of_spending(spending: Spending) -> Facts:
    """What is known of spending that belongs to no chat: who spent, and on which model."""
    models = [entry.model for entry in spending.transactions if entry.model is not None]
    return {
        **dict.fromkeys(Fact),
        Fact.MODEL: models[0] if models else None,
        Fact.USER: spending.user_id,
        Fact.TENANT: spending.tenant_id,
        Fact.ROLE: spending.user.role if spending.user is not None else None,
        Fact.GROUP: spending.user.groups if spending.user is not None else None,
    }


def fact_tags(facts: Facts, wanted: Sequence[Fact]) -> list[str]:
    """The tags of the facts that are to become some: `fact:value`, one for each value."""
    return [f"{fact.value}:{value}"[:_TAG_CHARACTERS] for fact in wanted for value in values_of(facts, fact)]


def with_role(metadata: Mapping[str, str], facts: Facts) -> Mapping[str, str]:
    """A trace's metadata with the role and the groups of its user, where they are read."""
    entries = {"user_role": values_of(facts, Fact.ROLE), "user_groups": values_of(facts, Fact.GROUP)}
    known = {name: ", ".join(values) for name, values in entries.items() if values}
    return {**metadata, **known} if known else metadata
