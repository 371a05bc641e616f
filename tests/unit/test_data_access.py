"""How far back a server shows what it holds, by its address."""

from datetime import timedelta

import pytest

from tailer.langfuse.data_access import shortest_sight


@pytest.mark.parametrize(
    ("host", "sight"),
    [
        ("https://cloud.langfuse.com", timedelta(days=29)),
        ("https://us.cloud.langfuse.com", timedelta(days=29)),
        ("https://hipaa.cloud.langfuse.com/", timedelta(days=29)),
        ("https://langfuse.example.org", None),
        ("https://notcloud.langfuse.com", None),
        ("http://localhost:3000", None),
    ],
)
def test_only_the_cloud_of_langfuse_may_hide_what_is_a_month_old(host: str, sight: timedelta | None) -> None:
    assert shortest_sight(host) == sight
