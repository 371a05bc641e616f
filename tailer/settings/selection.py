"""The settings of the selection: which turns become traces, and what of their later life follows them there."""

from typing import Annotated, Final

from pydantic import BaseModel, Field

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
from tailer.settings.kinds import choice, pieces, switch

FACT_NAMES: Final = ", ".join(Fact)
_RULES: Final = pieces(
    f"fact=pattern with commas between them, a fact of {FACT_NAMES}, such as endpoint=openAI,model=gpt-4*",
    parse_rule,
)


class SelectionSettings(BaseModel):
    """What is exported of the turns that LibreChat stores, and of what happens to them afterwards."""

    temporary: Annotated[
        TemporaryPolicy, Setting(Group.CONTENT, choice(TemporaryPolicy), ("TAILER_TEMPORARY",))
    ] = Field(
        default=TemporaryPolicy.SKIP,
        description="What becomes of temporary chats: nothing, a trace without text, or a full one. Skip, "
        "because whoever starts one expects that nobody keeps it.",
    )
    copies: Annotated[CopyPolicy, Setting(Group.CONTENT, choice(CopyPolicy), ("TAILER_COPIES",))] = Field(
        default=CopyPolicy.SKIP,
        description="What becomes of forks, duplicates and imports: nothing, or a trace without usage and "
        "cost. Skip, because a copied turn was never run again.",
    )
    native: Annotated[NativePolicy, Setting(Group.CONTENT, choice(NativePolicy), ("TAILER_NATIVE",))] = Field(
        default=NativePolicy.SKIP,
        description="What becomes of turns that LibreChat traced itself: nothing, or a second trace under an "
        "id of its own. Skip, because two traces in one project count the cost twice.",
    )
    deletions: Annotated[
        DeletionPolicy, Setting(Group.CONTENT, choice(DeletionPolicy), ("TAILER_DELETIONS",))
    ] = Field(
        default=DeletionPolicy.KEEP,
        description="What becomes of the trace when its message, conversation or account is deleted: it "
        "stays, or it is deleted too. Keep, because nothing brings a deleted trace back.",
    )
    feedback: Annotated[bool, Setting(Group.CONTENT, switch(), ("TAILER_FEEDBACK",))] = Field(
        default=True,
        description="Whether thumbs become scores, and follow when they are changed or taken back. True, "
        "because it is what people think of the answers, for one small score each.",
    )
    edits: Annotated[bool, Setting(Group.CONTENT, switch(), ("TAILER_EDITS",))] = Field(
        default=True,
        description="Whether edits after the fact become events, and those of answers corrections too. "
        "True, because otherwise the chat and its trace differ and nothing says so.",
    )
    stream_transactions: Annotated[
        bool, Setting(Group.CONTENT, switch(), ("TAILER_STREAM_TRANSACTIONS",))
    ] = Field(
        default=False,
        description="Whether calls of the remote API, which leave transactions but no messages, become usage "
        "traces. Needs find and changeStream on `transactions`. False, because chats do not need that right.",
    )
    allow: Annotated[tuple[Rule, ...], Setting(Group.CONTENT, _RULES, ("TAILER_ALLOW",))] = Field(
        default=(),
        description="For every fact named here, only turns that fit one of its patterns are sent. Patterns "
        "are those of a shell, with case and without commas (`?` fits any character); `role` needs find on "
        "`users`. None, because a list that nobody wrote should hide nothing.",
    )
    deny: Annotated[tuple[Rule, ...], Setting(Group.CONTENT, _RULES, ("TAILER_DENY",))] = Field(
        default=(),
        description="Turns that fit any of these are not sent, whatever TAILER_ALLOW says. Patterns as "
        "there; `role` needs find on `users`. None, because a list that nobody wrote should hide nothing.",
    )
