"""The check whether LibreChat traces into the same project without a mark on its rows.

LibreChat traces by itself since 0.8.1, but marks the rows only since 0.8.8 (`langfuseDestinationIds`). Its traces carry
the conversation as their session. Up to 0.8.6 they have ids of their own. In 0.8.7 a turn's trace has the same id as
the tailer's, and its first observation another one.
"""

from collections.abc import Mapping
from typing import Final

from tailer.core.identity import (
    native_copy_trace_id,
    observation_id,
    title_trace_id,
    turn_trace_id,
    unanswered_trace_id,
)
from tailer.daemon.ways import langfuse_access, langfuse_credentials
from tailer.errors import DestinationError
from tailer.langfuse.connection import LangfuseConnection
from tailer.langfuse.sessions import Root, read_roots
from tailer.mongo.connection import Database
from tailer.mongo.examination import ExaminationFailed, read_last_conversations
from tailer.operations.doctor.destinations import name_check
from tailer.operations.doctor.findings import Finding, failed, passed, skipped, warned
from tailer.settings import Settings
from tailer.settings.destinations import LangfuseDestination

_CHECK: Final = "no second tracing"
_CONVERSATIONS: Final = 20


async def check_double_tracing(database: Database, settings: Settings) -> list[Finding]:
    """Whether the last conversations have traces in a project of Langfuse that the tailer did not send."""
    projects = [each for each in settings.destinations if isinstance(each, LangfuseDestination)]
    if not projects:
        return [skipped(_CHECK, "no traces are sent to Langfuse")]
    try:
        conversations = await read_last_conversations(database, _CONVERSATIONS)
    except ExaminationFailed as error:
        return [failed(_CHECK, error.failure, error.hint)]
    if not conversations:
        return [skipped(_CHECK, "there are no conversations yet")]
    return [await _check_project(project, conversations, settings) for project in projects]


async def _check_project(
    project: LangfuseDestination, conversations: Mapping[str, frozenset[str]], settings: Settings
) -> Finding:
    check = name_check(_CHECK, project, settings)
    try:
        langfuse = LangfuseConnection(
            langfuse_credentials(project),
            request_timeout=settings.request_timeout,
            connections=1,
            access=langfuse_access(project),
        )
    except DestinationError as error:
        return skipped(check, f"Langfuse cannot be asked ({error.subject})")
    async with langfuse:
        roots = await read_roots(langfuse, list(conversations))
    if isinstance(roots, str):
        return skipped(check, f"Langfuse does not show what is in a session ({roots})")
    foreign = {root.session_id for root in roots if is_foreign(root, conversations)}
    if not foreign:
        return passed(check, f"the last {len(conversations)} conversations have no traces but the tailer's")
    return warned(
        check,
        f"{len(foreign)} of the last {len(conversations)} conversations have traces that the tailer did not send: "
        "their cost and tokens count twice",
        "most likely LibreChat traces too, which leaves no mark on its rows before 0.8.8: take LANGFUSE_PUBLIC_KEY and "
        "LANGFUSE_SECRET_KEY out of LibreChat's environment and restart it",
    )


def is_foreign(root: Root, conversations: Mapping[str, frozenset[str]]) -> bool:
    """Whether a root differs from those that the tailer sends for the messages of its conversation."""
    for message_id in conversations.get(root.session_id, frozenset()):
        if root.trace_id == turn_trace_id(message_id):
            return root.observation_id != observation_id(message_id, "root")
        if root.trace_id in {
            title_trace_id(message_id),
            unanswered_trace_id(message_id),
            native_copy_trace_id(message_id),
            native_copy_trace_id(f"title-{message_id}"),
        }:
            return False
    return True
