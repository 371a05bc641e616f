"""What the recorded turns are as bytes: a change of how traces are made must not change them by accident.

`tests.unit.chunk_digests` says how to write them down anew after a change that is meant.
"""

import pytest

from tailer.core.policy.policies import ContentChoice
from tests.unit.chunk_digests import RECORDINGS, digest_of, written_down


@pytest.mark.parametrize("content", ContentChoice)
@pytest.mark.parametrize("name", RECORDINGS)
def test_the_recorded_turns_are_the_same_bytes_as_before(name: str, content: ContentChoice) -> None:
    assert digest_of(name, content) == written_down()[name][content.value]


def test_each_recording_is_written_down() -> None:
    assert sorted(written_down()) == sorted(RECORDINGS)
