"""docs/mongodb-errors.md against the table of codes, and what follows from a failure that no server can be made to
give."""

import re
from pathlib import Path

import pytest
from pymongo.errors import AutoReconnect, ConfigurationError, OperationFailure, PyMongoError

from tailer.core.stream.positions import FailureCause
from tailer.errors import SourceAway
from tailer.mongo.error_codes import ERROR_CODES, LISTED_CODES, Reaction
from tailer.mongo.failures import (
    StreamUnsupported,
    classify_failure,
    explain_source_failure,
    failure_cause,
    find_source_failure,
    remedy_for,
)

DOCUMENT = (Path(__file__).parents[2] / "docs" / "mongodb-errors.md").read_text(encoding="utf-8")


def test_the_document_lists_every_code_with_its_reaction() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| `(\w+)` \| `(\w+)` \| (.+) \|$", DOCUMENT, re.MULTILINE)

    assert [(int(code), name, reaction, cause) for code, name, reaction, cause, _ in rows] == [
        (code, found.name, found.reaction.value, found.cause.value)
        for code in LISTED_CODES
        for found in [ERROR_CODES[code]]
    ]
    for reaction in Reaction:
        assert f"| `{reaction.value}` | " in DOCUMENT


def test_whatever_waits_for_an_operator_has_a_remedy() -> None:
    for code, found in ERROR_CODES.items():
        assert (found.remedy is not None) == (found.reaction is Reaction.WAIT), code


@pytest.mark.parametrize("code", [2, 59, 115, 166, 303, 8000, 40324, 40573])
def test_a_source_that_can_never_stream_is_waited_for_with_a_remedy_of_its_own(code: int) -> None:
    error = OperationFailure("no", code)

    assert classify_failure(error) is Reaction.WAIT
    assert "see the server's log" not in remedy_for(error)
    assert "the server's log" not in explain_source_failure(error, "somewhere").hint


def test_an_unknown_code_is_one_that_an_operator_must_look_at() -> None:
    error = OperationFailure("s3cret", 123_456)

    assert classify_failure(error) is Reaction.WAIT
    assert failure_cause(error) is FailureCause.OTHER
    assert "code_123456" in remedy_for(error)
    assert "s3cret" not in remedy_for(error)


def test_the_servers_own_word_that_a_failure_passes_is_believed() -> None:
    details = {"errorLabels": ["ResumableChangeStreamError"]}

    assert classify_failure(OperationFailure("no", 59, details)) is Reaction.REOPEN


def test_an_answer_without_a_token_is_explained() -> None:
    assert classify_failure(StreamUnsupported()) is Reaction.WAIT
    assert failure_cause(StreamUnsupported()) is FailureCause.UNSUPPORTED
    assert "postBatchResumeToken" in remedy_for(StreamUnsupported())


def test_a_drivers_error_that_comes_through_to_the_top_is_told_with_a_remedy() -> None:
    error: PyMongoError = ConfigurationError("mongodb://u:s3cret@h")
    found = find_source_failure(ExceptionGroup("tasks", [ExceptionGroup("more", [ValueError(), error])]))

    assert found is not None
    assert "SRV record" in found.hint
    assert "s3cret" not in str(found)
    assert isinstance(find_source_failure(AutoReconnect("gone")), SourceAway)
    assert find_source_failure(ValueError()) is None
