"""Ids: derived from stored ids alone, in Langfuse's form, equal to LibreChat's own."""

import re

import pytest
from hypothesis import given
from langfuse import Langfuse

from tailer.core.identity import observation_id, title_trace_id, turn_trace_id, unanswered_trace_id
from tests.recordings import NAMES, truth
from tests.unit.documents import ANY_TEXT


@pytest.mark.parametrize("name", NAMES)
def test_the_trace_of_a_turn_is_the_one_librechat_would_make(name: str) -> None:
    """So feedback that LibreChat itself sends meets our trace."""
    for turn in truth(name).turns:
        if turn.response_message_id is not None:
            assert turn_trace_id(turn.response_message_id) == turn.native_trace_id


def test_the_trace_ids_are_those_of_langfuses_own_client() -> None:
    """A user finds a turn's trace with `Langfuse.create_trace_id(seed=…)`; the title's seed is LibreChat's."""
    assert turn_trace_id("ü-1") == Langfuse.create_trace_id(seed="ü-1")
    assert title_trace_id("m-1") == Langfuse.create_trace_id(seed="title-m-1")


@given(ANY_TEXT)
def test_ids_have_the_form_that_a_span_needs(message_id: str) -> None:
    """Any id that a client wrote gives one, lone surrogates included."""
    for trace_id in (turn_trace_id(message_id), title_trace_id(message_id), unanswered_trace_id(message_id)):
        assert re.fullmatch("[0-9a-f]{32}", trace_id)
    assert re.fullmatch("[0-9a-f]{16}", observation_id(message_id, "root"))


@given(ANY_TEXT)
def test_turn_title_and_unanswered_question_are_different_traces(message_id: str) -> None:
    ids = {turn_trace_id(message_id), title_trace_id(message_id), unanswered_trace_id(message_id)}

    assert len(ids) == 3


def test_the_ids_of_observations_never_change_between_releases() -> None:
    """A turn that is sent again after an upgrade replaces its observations and does not double them."""
    assert observation_id("m-1", "root") == "0ecd26bc3196556f"
    assert observation_id("m-1", "tool", 3) == "87b3a04635f4d9b7"


def test_every_role_and_place_has_an_observation_id_of_its_own() -> None:
    places = [
        (message_id, role, index)
        for message_id in ("m-1", "m-2", "title-m-1")
        for role in ("root", "generation", "tool", "event", "call")
        for index in (None, 0, 1, 10, 11)
    ]

    assert len({observation_id(*place) for place in places}) == len(places)
