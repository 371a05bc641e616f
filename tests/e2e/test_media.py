"""Images and files through the real daemon: sent only where that is switched on, and never in an attribute."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tailer.demo.stage.player import play
from tests.e2e.daemon import langfuse_settings, start
from tests.e2e.databases import Databases
from tests.e2e.expectations import place
from tests.fakes.langfuse import FakeLangfuse

PICTURE = b"\x89PNG\r\n\x1a\n of a red square"


@pytest.mark.parametrize("content", ["full", "none"])
async def test_a_picture_goes_to_langfuse_only_where_all_content_does(
    content: str, databases: Databases, tmp_path: Path
) -> None:
    """The mounted file is uploaded once and referred to; a policy that withholds text withholds it too."""
    traffic = place("10-files", datetime.now(UTC))
    files = tmp_path / "files"
    for event in traffic.recording.events:
        for file in (event.full_document or {}).get("files") or ():
            if isinstance(file, dict) and str(file.get("filepath")).startswith("/images/"):
                path = files / file["filepath"].lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(PICTURE)
    async with FakeLangfuse() as fake:
        settings = {
            **databases.settings,
            **langfuse_settings(fake.url),
            "TAILER_SETTLE_SECONDS": "0.3",
            "TAILER_MEDIA_ROOT": str(files),
            "TAILER_CONTENT": content,
        }
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await play(traffic.recording, databases.source, speed=None)
            await databases.wait_until_done(daemon.must_run)

        references = [
            str(value)
            for span in fake.spans
            for name, value in span.attributes.items()
            if name.startswith("langfuse.observation.metadata.media_")
        ]
        assert fake.spans
        assert fake.violations == []
        assert list(fake.media.uploaded.values()) == ([PICTURE] if content == "full" else [])
        assert [reference[:16] for reference in references] == ["@@@langfuseMedia"] * len(fake.media.uploaded)
