"""The one run that all tests of fidelity look at."""

import asyncio

import pytest

from tailer.demo.stage.replica_set import ReplicaSet
from tests.e2e.playing import FOLLOWED, UNANSWERED, Played, place_all, play_live
from tests.recordings import NAMES


@pytest.fixture(scope="session")
def played(replica_set: ReplicaSet, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """All recordings side by side at their own pace, through one daemon with the settings as they come.

    Only the settle time is shorter, and questions time out sooner.
    """
    settings = {"TAILER_UNANSWERED_SECONDS": "10"}
    directory, unanswered = tmp_path_factory.mktemp("live"), sum(UNANSWERED.values())
    return asyncio.run(
        play_live(replica_set, directory, place_all(NAMES), settings, unanswered=unanswered, in_step=FOLLOWED)
    )
