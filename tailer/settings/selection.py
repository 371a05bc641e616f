"""The settings of the selection: which turns become traces, and which later changes follow them there."""

from typing import Annotated, Final

from pydantic import Field

from tailer.core.policy.policies import (
    CopyPolicy,
    DeletionPolicy,
    Fact,
    NativePolicy,
    Rule,
    TemporaryPolicy,
    parse_rule,
)
from tailer.settings.environment import Group, Setting
from tailer.settings.group import SettingsGroup
from tailer.settings.kinds import choice, pieces, switch

FACT_NAMES: Final = ", ".join(Fact)
_RULES: Final = pieces(
    f"fact=pattern with commas between them, a fact of {FACT_NAMES}, such as endpoint=openAI,model=gpt-4*",
    parse_rule,
)


class SelectionSettings(SettingsGroup):
    """What is exported of the turns that LibreChat stores, and of what happens to them afterwards."""

    temporary: Annotated[
        TemporaryPolicy, Setting(Group.CONTENT, choice(TemporaryPolicy), ("TAILER_TEMPORARY",))
    ] = Field(
        default=TemporaryPolicy.SKIP,
        description="What happens to temporary chats: nothing is sent, a trace without text, or a full "
        "one. Skip, because people expect that a temporary chat is not kept.",
    )
    copies: Annotated[CopyPolicy, Setting(Group.CONTENT, choice(CopyPolicy), ("TAILER_COPIES",))] = Field(
        default=CopyPolicy.SKIP,
        description="What happens to forks, duplicates and imports: nothing is sent, or a trace without "
        "usage and cost. Skip, because a copied turn was never run again.",
    )
    native: Annotated[NativePolicy, Setting(Group.CONTENT, choice(NativePolicy), ("TAILER_NATIVE",))] = Field(
        default=NativePolicy.SKIP,
        description="What happens to turns that LibreChat traced itself: nothing is sent, or a second "
        "trace under its own id. Skip, because two traces in one project count the cost "
        "twice.",
    )
    deletions: Annotated[
        DeletionPolicy, Setting(Group.CONTENT, choice(DeletionPolicy), ("TAILER_DELETIONS",))
    ] = Field(
        default=DeletionPolicy.KEEP,
        description="What happens to the trace when its message, conversation or account is deleted: it "
        "stays, or it is deleted too. Keep, because nothing brings a deleted trace back.",
    )
    feedback: Annotated[bool, Setting(Group.CONTENT, switch(), ("TAILER_FEEDBACK",))] = Field(
        default=True,
        description="Whether thumbs become scores, which follow every change. True, because they say what "
        "people think of the answers, for one small score each.",
    )
    edits: Annotated[bool, Setting(Group.CONTENT, switch(), ("TAILER_EDITS",))] = Field(
        default=True,
        description="Whether later edits become events, and edits of answers also corrections. True, "
        "because otherwise the chat and its trace would differ without any sign of it.",
    )
    stream_transactions: Annotated[
        bool, Setting(Group.CONTENT, switch(), ("TAILER_STREAM_TRANSACTIONS",))
    ] = Field(
        default=False,
        description="Whether calls over LibreChat's agents API, which leave transactions but no messages, "
        "become usage traces. Needs find and changeStream on `transactions`. False, because "
        "chats do not need that privilege.",
    )
    allow: Annotated[tuple[Rule, ...], Setting(Group.CONTENT, _RULES, ("TAILER_ALLOW",))] = Field(
        default=(),
        description="For every fact named here, only turns that match one of its patterns are sent. "
        "Patterns are those of a shell, case-sensitive and without commas (`?` matches any "
        "character); `role` needs find on `users`, `group` also on `groups`. A turn of which "
        "they cannot be read is not sent where a rule asks for them. None, because only the "
        "operator knows what to leave out.",
    )
    deny: Annotated[tuple[Rule, ...], Setting(Group.CONTENT, _RULES, ("TAILER_DENY",))] = Field(
        default=(),
        description="Turns that match any of these are not sent, whatever TAILER_ALLOW says. Patterns as "
        "in TAILER_ALLOW; `role` needs find on `users`, `group` also on `groups`, and a turn of "
        "which they cannot be read is not sent. None, because only the operator knows what to "
        "leave out.",
    )
