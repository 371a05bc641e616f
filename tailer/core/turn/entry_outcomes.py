"""How a finished entry of the backlog is counted (`tailer_pairs_total`)."""

from enum import StrEnum
from typing import Final

from tailer.core.policy.policies import READ_ELSEWHERE, Denial, Fact
from tailer.core.turn.turns import Exclusion, Outcome, Wait


class EntryOutcome(StrEnum):
    """How a turn ended, which other trace was sent, or why a row gives no trace now."""

    COMPLETE = "complete"
    ERROR = "error"
    ABORTED = "aborted"
    PARTIAL = "partial"
    COPIED = "copied"
    UNANSWERED = "unanswered"
    TITLE = "title"
    API_USAGE = "api_usage"
    EDITED = "edited"
    LATE = "late"
    NOT_A_RESPONSE = "not_a_response"
    TEMPORARY = "temporary"
    TRACED_NATIVELY = "traced_natively"
    ANSWERED = "answered"
    NOT_SAMPLED = "not_sampled"
    NOT_ROUTED = "not_routed"
    """No route leads from it to a destination."""
    DENIED_ENDPOINT = "denied_endpoint"
    DENIED_MODEL = "denied_model"
    DENIED_AGENT = "denied_agent"
    DENIED_USER = "denied_user"
    DENIED_TENANT = "denied_tenant"
    DENIED_ROLE = "denied_role"
    DENIED_GROUP = "denied_group"
    DENIED_TAG = "denied_tag"
    UNREAD_ROLE = "unread_role"
    """A rule asks for a fact that could not be read, so it may leave the turn out."""
    UNREAD_GROUP = "unread_group"
    UNREAD_TAG = "unread_tag"
    PARKED_RESPONSE = "parked_response"
    PARKED_FINISH = "parked_finish"
    PARKED_APPROVAL = "parked_approval"
    SENT_BEFORE = "sent_before"
    FORGOTTEN = "forgotten"
    """Its row changed so long after it was made that the record of having sent it may have expired."""
    FOLLOWED = "followed"
    DELETED = "deleted"
    """The row was deleted before it was read."""
    UNREADABLE = "unreadable"
    """The row lacks a field that every message has."""
    DELETION_KEPT = "deletion_kept"
    DELETION_FOLLOWED = "deletion_followed"
    DELETION_REFUSED = "deletion_refused"
    """The destination refused to delete it, for good: the traces stay."""
    DELETION_UNKNOWN = "deletion_unknown"
    """Nothing was sent for the deleted row."""
    EXPIRY_FOLLOWED = "expiry_followed"
    NO_TITLE = "no_title"
    NO_TOKENS = "no_tokens"
    SPENT_IN_CHAT = "spent_in_chat"
    OTHER_SHARD = "other_shard"
    """The row turned out to be another shard's, which works on it."""
    SENDING_DISABLED = "sending_disabled"
    DEAD_LETTER = "dead_letter"
    OWED = "owed"
    """Its destinations are away; it is kept for them."""
    CAUGHT_UP = "caught_up"
    """A destination that was away has it by now."""


def outcome_of(verdict: Outcome | Exclusion) -> EntryOutcome:
    """How a turn with this verdict is counted."""
    return EntryOutcome(verdict.value)


def denied(denial: Denial) -> EntryOutcome:
    """How a turn is counted that a rule leaves out."""
    return EntryOutcome(f"{'unread' if denial.unread else 'denied'}_{denial.fact.value}")


DENIED_OUTCOMES: Final = frozenset(denied(Denial(fact)) for fact in Fact)
UNREAD_OUTCOMES: Final = frozenset(denied(Denial(fact, unread=True)) for fact in READ_ELSEWHERE)


def parked(wait: Wait) -> EntryOutcome:
    """How a turn is counted that waits long."""
    return EntryOutcome(f"parked_{wait.value}")
