"""The settings of sharing: a number, or the name of a pod that ends in one."""

import os
from pathlib import Path

import pytest

from tailer.core.stream.shard import WHOLE, Shard
from tailer.errors import SettingsError
from tailer.settings import describe_settings, load_settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A process environment with nothing of ours in it but the address of MongoDB."""
    for name in list(os.environ):
        if name.startswith(("TAILER_", "LANGFUSE_", "MONGO_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONGO_URI", "mongodb://mongodb/LibreChat")
    return monkeypatch


def test_without_a_number_one_instance_does_everything() -> None:
    assert load_settings().shard == WHOLE


@pytest.mark.parametrize(
    ("given", "total", "index"),
    [
        ("0", "4", 0),
        ("3", "4", 3),
        ("librechat-tailer-3", "4", 3),
        ("librechat-tailer-5", "4", 1),
        ("librechat-tailer-2", "1", 0),
        ("a-0", "2", 0),
    ],
)
def test_a_number_or_a_pods_ordinal_names_the_shard(
    environment: pytest.MonkeyPatch, given: str, total: str, index: int
) -> None:
    """Pods beyond the number of shards stand by for the first ones."""
    environment.setenv("TAILER_SHARD", given)
    environment.setenv("TAILER_TOTAL_SHARDS", total)

    settings = load_settings()

    assert settings.shard == Shard(index, int(total))
    assert {row.name: row.value for row in describe_settings(settings)}["TAILER_SHARD"] == given


def test_a_pods_name_without_a_number_of_shards_is_doubted(environment: pytest.MonkeyPatch) -> None:
    """Every pod would do everything, or stand by."""
    environment.setenv("TAILER_SHARD", "librechat-tailer-1")

    assert any("TAILER_SHARD is not used" in warning for warning in load_settings().warnings)
    environment.setenv("TAILER_TOTAL_SHARDS", "2")
    assert not any("TAILER_SHARD" in warning for warning in load_settings().warnings)


@pytest.mark.parametrize(
    ("given", "total"),
    [
        ("4", "4"),
        ("1", "1"),
        ("-1", "4"),
        ("one", "2"),
        ("pod-", "2"),
        ("1.5", "2"),
        ("0", "0"),
        ("0", "65"),
        ("²", "4"),
    ],
)
def test_a_shard_that_cannot_be_is_refused(environment: pytest.MonkeyPatch, given: str, total: str) -> None:
    """With the name of the setting and what to give instead."""
    environment.setenv("TAILER_SHARD", given)
    environment.setenv("TAILER_TOTAL_SHARDS", total)

    with pytest.raises(SettingsError) as refused:
        load_settings()

    assert "SHARD" in refused.value.subject
    assert "give" in refused.value.hint
