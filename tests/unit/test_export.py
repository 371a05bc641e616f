"""From a record to its traces under the operator's decisions: who is left out and why, and what is shown of the
rest."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.identity import native_copy_trace_id, title_trace_id, turn_trace_id, unanswered_trace_id
from tailer.core.masking.masker import Masker, compile_rules
from tailer.core.policy.policies import (
    ContentChoice,
    CopyPolicy,
    Fact,
    NativePolicy,
    Policies,
    TemporaryPolicy,
    is_sampled,
    parse_content_rule,
    parse_rules,
)
from tailer.core.policy.users import User
from tailer.core.trace.bounds import Bounds
from tailer.core.trace.export import (
    Exported,
    TurnExport,
    export_title,
    export_turn,
    is_chosen,
    shows_media,
    trace_id_of,
)
from tailer.core.trace.observations import Level
from tailer.core.turn.entry_outcomes import DENIED_OUTCOMES, UNREAD_OUTCOMES
from tailer.core.turn.turns import Exclusion, Outcome, TurnRecord, Wait
from tests.unit.documents import (
    CONVERSATION,
    MISSING,
    RESPONSE,
    USER,
    Document,
    agent,
    agent_row,
    completion_row,
    conversation,
    conversation_row,
    export,
    message,
    moment,
    old_response_row,
    options,
    prompt_row,
    response_row,
    row,
    stamp,
    trace_of,
    traces_of,
    turn_record,
    usage_metadata,
    user_row,
)

TITLE = [prompt_row(142, context="title"), completion_row(5, context="title")]
BILLED = [prompt_row(108), completion_row(13)]
NATIVE = response_row(langfuseDestinationIds=["d1"])
FORKED = response_row(metadata=usage_metadata(108, 13), messageId="copy", feedback={"rating": "thumbsUp"})
IMPORTED = response_row(updatedAt=MISSING)


def record_of(response: Document | None, **fields: Any) -> TurnRecord:
    return turn_record(response, user_row(), *BILLED, **fields)


@pytest.mark.parametrize(
    ("record", "word"),
    [
        (record_of(FORKED), "copied"),
        (record_of(IMPORTED), "copied"),
        (record_of(response_row(isTemporary=True)), "temporary"),
        (record_of(NATIVE), "traced_natively"),
        (turn_record(None, user_row(isTemporary=True)), "temporary"),
        (turn_record(None, user_row(updatedAt=MISSING)), "copied"),
        (turn_record(None, user_row(), siblings=(message(response_row()),)), "answered"),
        (turn_record(response_row(isCreatedByUser=True)), "not_a_response"),
    ],
    ids=str,
)
def test_what_is_left_out_has_its_word(record: TurnRecord, word: str) -> None:
    assert export(record, deadline_passed=True) == word


@pytest.mark.parametrize(
    ("fact", "pattern"),
    [
        (Fact.ENDPOINT, "openAI"),
        (Fact.MODEL, "gpt-4o"),
        (Fact.AGENT, "agent_*"),
        (Fact.USER, USER),
        (Fact.TENANT, "acme"),
        (Fact.ROLE, "ADMIN"),
        (Fact.GROUP, "Finance"),
        (Fact.TAG, "quarterly"),
    ],
)
def test_a_denied_turn_is_counted_by_the_fact_it_was_denied_for(fact: Fact, pattern: str) -> None:
    record = record_of(
        response_row(tenantId="acme"),
        agent=agent(agent_row()),
        user=User(USER, None, None, "ADMIN", groups=("Board", "Finance")),
        conversation=conversation(conversation_row(tags=["draft", "quarterly"])),
    )

    assert (
        export(record, policies=Policies(deny=parse_rules([f"{fact.value}={pattern}"]))) == f"denied_{fact}"
    )
    assert export(record, policies=Policies(allow=parse_rules([f"{fact.value}=x"]))) == f"denied_{fact}"
    assert isinstance(
        export(record, policies=Policies(allow=parse_rules([f"{fact.value}={pattern}"]))), Exported
    )


@pytest.mark.parametrize(
    ("user", "role", "groups"),
    [
        (None, "unread_role", "unread_group"),
        (User(USER, None, None, "ADMIN"), "denied_role", "unread_group"),
        (User(USER, None, None, None, groups=()), None, None),
    ],
    ids=["no row", "groups may not be read", "a row that names neither"],
)
def test_a_turn_is_left_out_where_its_role_or_groups_could_not_be_read_and_a_rule_asks_for_them(
    user: User | None, role: str | None, groups: str | None
) -> None:
    record = record_of(response_row(), user=user)

    for rule, word in (("role=ADMIN", role), ("group=Board", groups)):
        made = export(record, policies=Policies(deny=parse_rules([rule])))
        assert isinstance(made, Exported) if word is None else made == word


def test_the_text_is_withheld_where_the_role_that_a_rule_asks_for_could_not_be_read() -> None:
    policies = Policies(content_rules=(parse_content_rule("role=ADMIN:none"),))
    unread, without_role = (
        export(record_of(response_row(), user=user), policies=policies)
        for user in (None, User(USER, None, None, None))
    )
    assert isinstance(unread, Exported)
    assert isinstance(without_role, Exported)

    assert (unread.traces[0].root.output, unread.sent.content) == (None, ContentChoice.NONE)
    assert (without_role.traces[0].root.output, without_role.sent.content) == ("Paris.", ContentChoice.FULL)


def test_rules_know_every_group_and_the_trace_names_the_first_fifty() -> None:
    """Every span repeats them."""
    groups = tuple(f"group {number:03}" for number in range(200))
    record = record_of(response_row(), user=User(USER, None, None, None, groups=groups))

    denied_by_last = Policies(deny=parse_rules(["group=group 199"]))
    assert export(record, policies=denied_by_last) == "denied_group"
    made = export(record, tag_facts=(Fact.GROUP,))
    assert isinstance(made, Exported)
    assert made.traces[0].tags == tuple(f"group:{name}" for name in groups[:50])
    assert made.traces[0].metadata["user_groups"] == ", ".join(groups[:50])


def test_a_turn_without_its_conversation_is_left_out_by_a_rule_on_tags() -> None:
    deny = Policies(deny=parse_rules(["tag=private"]))

    assert export(record_of(response_row()), policies=deny) == "unread_tag"
    chat = conversation(conversation_row())
    assert isinstance(export(record_of(response_row(), conversation=chat), policies=deny), Exported)


WORDS = {*Exclusion, *DENIED_OUTCOMES, *UNREAD_OUTCOMES}
POLICIES = st.builds(
    Policies,
    temporary=st.sampled_from(TemporaryPolicy),
    copies=st.sampled_from(CopyPolicy),
    native=st.sampled_from(NativePolicy),
    content=st.sampled_from(ContentChoice),
    allow=st.sampled_from([(), parse_rules(["endpoint=openAI"]), parse_rules(["role=USER"])]),
    deny=st.sampled_from([(), parse_rules(["model=gpt*"])]),
)
RECORDS = [
    record_of(document)
    for document in (
        response_row(),
        NATIVE,
        FORKED,
        IMPORTED,
        response_row(isTemporary=True),
        response_row(unfinished=True, text=MISSING),
        old_response_row(finish_reason="incomplete"),
    )
] + [turn_record(None, user_row())]


@given(st.sampled_from(RECORDS), POLICIES, st.booleans())
def test_every_turn_has_traces_or_a_reason_from_a_closed_list(
    record: TurnRecord,
    policies: Policies,
    passed: bool,  # noqa: FBT001
) -> None:
    """Reasons are labels of a counter."""
    made = export(record, policies=policies, deadline_passed=passed)

    if isinstance(made, Wait):
        assert not passed
    elif isinstance(made, Exported):
        assert made.traces
        assert len({trace.id for trace in made.traces}) == len(made.traces)
        assert made.sent.trace_id == made.traces[0].id
    else:
        assert made in WORDS


def test_the_sample_is_the_conversations() -> None:
    """Asked before a turn is read."""
    for rate in (0.0, 0.3, 1.0):
        found = is_chosen(CONVERSATION, options(sample_rate=rate))
        assert found is is_sampled(CONVERSATION, rate)


def test_a_copy_on_request_has_no_numbers_no_title_and_a_tag() -> None:
    """What was spent was spent in the original, whatever rows name the copy."""
    for document in (FORKED, IMPORTED):
        record = turn_record(document, user_row(), *BILLED, *TITLE)
        made = export(record, policies=Policies(copies=CopyPolicy.EXPORT))
        assert isinstance(made, Exported)
        (trace,) = made.traces

        assert made.outcome is Outcome.COPIED
        assert "copied" in trace.tags
        assert trace.root.output == "Paris."
        assert not any(item.usage or item.cost or item.model for item in trace.observations)


def test_a_turn_that_librechat_traced_is_a_second_trace_under_another_id_on_request() -> None:
    """Under the same id, both would be added up."""
    policies = Policies(native=NativePolicy.DUPLICATE)
    found = trace_of(record_of(NATIVE), policies=policies)

    assert found.id == native_copy_trace_id(RESPONSE) != turn_trace_id(RESPONSE)
    assert trace_of(record_of(response_row()), policies=policies).id == turn_trace_id(RESPONSE)


def test_a_row_names_its_trace_before_it_is_read() -> None:
    assert trace_id_of(row(response_row())) == turn_trace_id(RESPONSE)
    assert trace_id_of(row(NATIVE)) == native_copy_trace_id(RESPONSE)
    question = user_row()
    assert trace_id_of(row(question)) == unanswered_trace_id(question["messageId"])


def test_a_temporary_chat_on_request_is_tagged_and_as_metadata_has_no_text() -> None:
    record = turn_record(response_row(isTemporary=True), user_row(isTemporary=True), *BILLED)
    full = trace_of(record, policies=Policies(temporary=TemporaryPolicy.FULL))
    bare = trace_of(record, policies=Policies(temporary=TemporaryPolicy.METADATA))

    assert full.root.output == "Paris."
    assert "temporary" in full.tags
    assert "temporary" in bare.tags
    assert "Paris" not in str(bare)
    assert [item.usage for item in bare.observations] == [item.usage for item in full.observations]


def test_facts_become_tags_where_they_are_known() -> None:
    record = record_of(response_row(tenantId="acme"), user=User(USER, None, None, "ADMIN"))
    found = trace_of(record, tags=("team-a", "team-a"), tag_facts=tuple(Fact))

    assert found.tags == (
        "team-a",
        "endpoint:openAI",
        "model:gpt-4o",
        f"user:{USER}",
        "tenant:acme",
        "role:ADMIN",
    )
    assert found.metadata["user_role"] == "ADMIN"
    assert found.metadata["tenant_id"] == "acme"


def test_a_tag_is_never_longer_than_langfuse_takes() -> None:
    record = record_of(response_row(endpoint="e" * 500))

    assert [len(tag) for tag in trace_of(record, tag_facts=(Fact.ENDPOINT,)).tags] == [200]


def test_a_turn_without_user_row_has_no_role() -> None:
    assert "user_role" not in trace_of(record_of(response_row())).metadata


@pytest.mark.parametrize("context", ["abort", "incomplete"])
def test_a_complete_row_that_was_billed_as_stopped_was_stopped(context: str) -> None:
    """0.8.2 to 0.8.4 can overwrite a stopped row; until 0.8.1 the ledger says it."""
    record = turn_record(old_response_row(), user_row(), prompt_row(108), completion_row(13, context=context))
    made = export(record)
    assert isinstance(made, Exported)

    assert made.outcome is Outcome.ABORTED
    assert made.traces[0].metadata["outcome"] == "aborted"
    assert made.traces[0].root.level is Level.WARNING
    assert {
        item.metadata["usage_source"] for item in made.traces[0].observations[1:]
    } == {"estimated"}  # fmt: skip


BLANK: dict[str, Any] = {"content": [], "text": "", "langfuseSampled": MISSING}


@pytest.mark.parametrize(
    ("response", "entries", "outcome"),
    [
        (
            response_row(**BLANK),
            [prompt_row(147, context="title"), completion_row(26, context="title")],
            "aborted",
        ),
        (response_row(**BLANK), [prompt_row(147), completion_row(0)], "complete"),
        (response_row(**BLANK, metadata=usage_metadata(111, 12)), [], "complete"),
        (response_row(**BLANK, metadata={"contextUsage": {"runId": RESPONSE}}), [], "complete"),
        (response_row(**{**BLANK, "text": "Paris."}), [], "complete"),
        (old_response_row(**BLANK), [], "complete"),
    ],
    ids=["stopped", "billed", "reported", "run", "text", "before 0.8.6"],
)
def test_an_answer_of_which_nothing_was_written_reported_or_billed_was_stopped_before_its_first_word(
    response: Document, entries: list[Document], outcome: str
) -> None:
    """So LibreChat 0.8.7 stores it: without a flag, as if it were complete."""
    assert trace_of(turn_record(response, user_row(), *entries)).metadata["outcome"] == outcome


def test_a_row_that_failed_stays_failed_whatever_was_billed() -> None:
    record = turn_record(
        old_response_row(content=[{"type": "error", "error": "429"}]),
        user_row(),
        completion_row(1, context="abort"),
    )

    assert trace_of(record).metadata["outcome"] == "error"


def test_what_is_remembered_is_what_later_changes_are_compared_with() -> None:
    document = response_row(expiredAt=moment(3_600), isTemporary=False)
    made = export(record_of(document), policies=Policies(content=ContentChoice.MASKED))
    assert isinstance(made, Exported)
    sent = made.sent

    assert (sent.message_id, sent.session_id, sent.user_id) == (RESPONSE, CONVERSATION, USER)
    assert sent.document_key == str(document["_id"])
    assert sent.answer.characters == len("Paris.")
    assert sent.question is not None
    assert (sent.content, sent.edits, sent.feedback) == (ContentChoice.MASKED, 0, None)
    assert (sent.start_milliseconds, sent.expires_milliseconds) == (stamp(0), stamp(3_600))
    assert "Paris" not in str(sent)


def test_a_title_that_comes_late_is_the_same_trace_as_one_that_comes_along() -> None:
    record = turn_record(
        response_row(), user_row(), *BILLED, *TITLE, conversation=conversation(conversation_row())
    )
    _, along = traces_of(record, tags=("team-a",))
    late = export_title(record, options(tags=("team-a",)))

    assert late == along
    assert along.id == title_trace_id(RESPONSE)


def test_a_title_is_left_out_with_its_turn() -> None:
    record = turn_record(response_row(isTemporary=True), user_row(), *TITLE)

    assert export_title(record, options()) is None
    assert export_title(replace(record, response=message(NATIVE)), options()) is None
    assert export_title(record_of(response_row()), options()) is None
    denied = Policies(deny=parse_rules(["endpoint=openAI"]))
    told = turn_record(response_row(), user_row(), *TITLE)
    assert export_title(told, options(policies=denied)) is None
    assert export_title(told, options()) is not None


def test_a_title_is_under_the_content_policy_of_its_turn() -> None:
    record = turn_record(response_row(), user_row(), *TITLE, conversation=conversation(conversation_row()))
    found = export_title(record, options(policies=Policies(content=ContentChoice.NONE)))

    assert found is not None
    assert "Capital" not in str(found)
    assert found.root.usage == {"input": 142, "output": 5}


UPLOAD = {"file_id": "f-1", "filename": "cat.png", "type": "image/png", "bytes": 70}


@pytest.mark.parametrize(
    ("policies", "shown"),
    [
        (Policies(), True),
        (Policies(content=ContentChoice.MASKED), False),
        (Policies(content=ContentChoice.NONE), False),
        (Policies(content_rules=(parse_content_rule("endpoint=openAI:masked"),)), False),
        (Policies(deny=parse_rules(["endpoint=openAI"])), False),
    ],
)
def test_bytes_of_files_leave_only_where_all_content_does(policies: Policies, *, shown: bool) -> None:
    """No mask reads a picture."""
    record = turn_record(response_row(), user_row(files=[UPLOAD]))

    assert shows_media(record, options(policies=policies)) is shown
    assert not shows_media(turn_record(response_row(), user_row()), options(policies=policies))


def test_files_of_a_turn_that_was_never_finished_are_shown_with_it() -> None:
    unfinished = response_row(text=MISSING, unfinished=True)

    assert shows_media(turn_record(unfinished, user_row(files=[UPLOAD])), options())


def test_bytes_of_a_turn_that_is_left_out_stay() -> None:
    files = [UPLOAD]

    assert not shows_media(turn_record(response_row(isTemporary=True), user_row(files=files)), options())
    assert not shows_media(turn_record(FORKED, user_row(files=files)), options())
    assert not shows_media(turn_record(None, None), options())


@pytest.mark.parametrize("other", [{"user": "5" * 24}, {"tenantId": "other"}])
def test_two_people_with_the_same_text_are_never_mixed(other: Document) -> None:
    """Own ids, own owner; nothing but the text is equal."""
    mine = trace_of(record_of(response_row(tenantId="acme")))
    theirs = trace_of(record_of(response_row(messageId="another", **{"tenantId": "acme", **other})))

    assert mine.id != theirs.id
    assert not {item.id for item in mine.observations} & {item.id for item in theirs.observations}
    assert (mine.user_id, mine.metadata["tenant_id"]) != (theirs.user_id, theirs.metadata["tenant_id"])


def test_groups_are_tags_and_metadata_where_they_were_read() -> None:
    """One tag a group; a user of whom no group was read has neither."""
    user = User("u", None, None, "USER", groups=("Board", "Finance"))
    record = record_of(response_row(), user=user)
    tagged = trace_of(record, tag_facts=(Fact.GROUP, Fact.ROLE))
    plain = trace_of(record_of(response_row()), tag_facts=(Fact.GROUP,))

    assert tagged.tags == ("group:Board", "group:Finance", "role:USER")
    assert tagged.metadata["user_groups"] == "Board, Finance"
    assert plain.tags == ()
    assert "user_groups" not in plain.metadata


def test_several_destinations_get_of_one_turn_what_each_would_get_alone() -> None:
    """What they share is made once; what each shows, under whose name, and where it ends, is its own."""
    record = turn_record(
        response_row(content=[{"type": "text", "text": "Write to ada@example.org."}]),
        user_row(text="Whom?"),
        *BILLED,
        *TITLE,
        conversation=conversation(conversation_row()),
    )
    own, rules = row(response_row()), compile_rules([], [])
    destinations = [
        options(),
        options(policies=Policies(content=ContentChoice.NONE), tags=("b",)),
        options(policies=Policies(content=ContentChoice.MASKED), mask=lambda: Masker(rules, bytes(16))),
        options(policies=Policies(content=ContentChoice.MASKED)),
        options(bounds=Bounds(field_bytes=10)),
        options(policies=Policies(deny=parse_rules(["model=gpt-4o"]))),
        options(),
    ]
    shared = TurnExport(own, record)

    for chosen in destinations:
        alone = export_turn(own, record, chosen, deadline_passed=False)
        assert shared.export(chosen, deadline_passed=False) == alone


def test_what_destinations_share_is_made_once() -> None:
    record = turn_record(response_row(), user_row(), *BILLED)
    shared = TurnExport(row(response_row()), record)

    first, second = (shared.export(options(), deadline_passed=False) for _ in range(2))

    assert isinstance(first, Exported)
    assert isinstance(second, Exported)
    assert first.traces[0].observations is second.traces[0].observations
