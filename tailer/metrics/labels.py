"""The labels and their closed sets. A value that is not in the set counts as `other`; a new series is never made."""

from typing import Final

from tailer.core.stream.positions import FailureCause, GapReason
from tailer.core.trace.followup import FollowupOperation
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.core.turn.turns import Outcome
from tailer.core.turn.usage import CostSource
from tailer.events import OF_COMMANDS, SideTask, StateOperation
from tailer.flow.sending.outcomes import RequestResult
from tailer.flow.sending.spot_checks import SpotCheckResult
from tailer.metrics.declaration import OTHER, Label

STREAM: Final = Label(
    "stream", "the collection that is tailed", ("messages", "conversations", "transactions")
)
EVENT_OPERATION: Final = Label("op", "what was done to a document", ("insert", "update", "replace", "delete"))
CAUSE: Final = Label(
    "reason",
    "what ended the command; invalidate: the collection was dropped or renamed; denied: a privilege or a password; "
    "unsupported: the server or the collection has no such streams; token_unknown: read again from the token's time; too_large: one event is skipped, its row is read",
    tuple(cause.value for cause in FailureCause),
)
GAP_REASON: Final = Label(
    "reason",
    "the oplog did not reach back, the token could not be read, or the position was ahead of the server's time",
    tuple(r.value for r in GapReason),
)
STATE: Final = Label(
    "state", "what the daemon is doing", ("starting", "standby", "streaming", "halted", "stopping")
)
SIDE_TASK: Final = Label(
    "task",
    "beat: state, progress, status page; oplog: its window and the clocks; dead_letters: how many are kept; shards: whether each is at work",
    tuple(task.value for task in SideTask),
)
WAITING: Final = Label(
    "kind",
    "what an open turn waits for",
    ("awaiting_settle", "awaiting_response", "awaiting_finalise", "awaiting_approval"),
)
RESULT: Final = Label(
    "result",
    "ok; partial: taken but for some spans; rate_limited: 429; server_error: 5xx; connection: no connection, or a broken one; timeout: no answer in "
    "time; retry: anything else that is tried again; auth: keys refused; rejected: 400; too_large: 413; withheld: not sent, "
    "because the lease was in doubt",
    tuple(result.value for result in RequestResult),
)
VERDICT: Final = Label(
    "verdict",
    "found: Langfuse had it; sent_again: Langfuse did not have it; sent_again_unread: Langfuse could not be asked",
    ("found", "sent_again", "sent_again_unread"),
)
SPOT_CHECK: Final = Label(
    "result",
    "kept: it was there; missing: it was not there after ten minutes; unread: Langfuse could not be asked",
    tuple(result.value for result in SpotCheckResult),
)
COLLECTION: Final = Label(
    "collection",
    "LibreChat's collection",
    ("messages", "conversations", "transactions", "agents", "users", "groups", OTHER),
)
FIELD: Final = Label(
    "reason", "the field that is missing or not a text", ("messageId", "conversationId", OTHER)
)
ANNOTATION: Final = Label(
    "operation", "what was asked for", tuple(operation.value for operation in FollowupOperation)
)
STATE_OPERATION: Final = Label(
    "operation",
    "what was tried",
    (*(operation.value for operation in StateOperation if operation not in OF_COMMANDS), OTHER),
)
TURN_OUTCOME: Final = Label("outcome", "how the turn ended", tuple(outcome.value for outcome in Outcome))
WORK_OUTCOME: Final = Label(
    "outcome",
    "how the turn ended; title, api_usage, edited, late: other traces; the rest names the reason why a row gives no trace now",
    (*(outcome.value for outcome in EntryOutcome), OTHER),
)
ENDPOINT: Final = Label(
    "endpoint",
    "LibreChat's endpoint, or api for its remote API; at most TAILER_USAGE_LABEL_VALUES, then other",
)
MODEL: Final = Label("model", "the model; at most TAILER_USAGE_LABEL_VALUES, then other")
TOOL: Final = Label("tool", "the tool; at most TAILER_USAGE_LABEL_VALUES, then other")
TOKEN_BUCKET: Final = Label(
    "type",
    "Langfuse's exclusive buckets",
    ("input", "output", "input_cached_tokens", "input_cache_creation", OTHER),
)
COST_SOURCE: Final = Label(
    "source", "where the cost comes from, as in the traces", (*(s.value for s in CostSource), OTHER)
)
DESTINATION: Final = Label(
    "destination", "the name of the destination; `default` where there is one, without a file that names it"
)
