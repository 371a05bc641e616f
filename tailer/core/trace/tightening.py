"""What may be shown now of a turn that was sent before the operator decided to show less."""

from dataclasses import replace

from tailer.core.librechat.messages import Message
from tailer.core.policy.policies import Policies, strictest
from tailer.core.trace.content_policy import MakeMasker, show_tags
from tailer.core.trace.facts import cut_tags, facts_of_row
from tailer.core.trace.followup import SentTurn


def tighten(sent: SentTurn, changed: Message, policies: Policies, mask: MakeMasker | None) -> SentTurn:
    """The record of a sent turn with the stricter of two content choices: its own, and that of today's policies.

    `changed` is the row that changed, a question or an answer. It does not tell all facts of the turn, so where the
    policies are others than those the turn was sent with, the strictest choice that they leave possible counts.
    """
    choice = sent.content
    if sent.content_digest != policies.content_digest:
        choice = strictest(choice, policies.content_for(facts_of_row(changed), temporary=changed.temporary))
    tags = cut_tags(show_tags(sent.tags, choice, mask))
    return replace(sent, content=choice, tags=tags)
