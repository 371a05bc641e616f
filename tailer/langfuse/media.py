"""Uploads of images and files, where the operator has switched them on and mounted LibreChat's files here.

A file is uploaded before its trace is sent, and only what was taken is referred to: a trace never points at nothing.
Uploading the same bytes twice is harmless: Langfuse knows them by their hash. A file that is missing, too large or of
a type that Langfuse does not take is left out and counted.
"""

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import httpx
from langfuse.api.core.api_error import ApiError
from langfuse.api.media.types.media_content_type import MediaContentType
from pydantic import ValidationError

from tailer.core.identity import ObservationId, TraceId
from tailer.core.librechat.documents import AttachedFile
from tailer.events import Emit, MediaLeftOut
from tailer.langfuse.connection import LangfuseConnection

_FIELD = "metadata"
_TYPES = frozenset(str(kind) for kind in MediaContentType.__members__.values())


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """Where LibreChat's files are mounted, and how large one may be."""

    root: Path
    largest_bytes: int


class LangfuseMedia:
    """A `MediaLibrary` that uploads to one Langfuse project."""

    def __init__(self, connection: LangfuseConnection, options: MediaOptions, emit: Emit) -> None:
        self._connection = connection
        self._options = options
        self._emit = emit

    async def publish(
        self, trace_id: TraceId, observation_id: ObservationId, files: Sequence[AttachedFile]
    ) -> tuple[str, ...]:
        """The references of the files that Langfuse now has, in Langfuse's own notation."""
        references = []
        for file in files:
            reference = await self._publish_one(trace_id, observation_id, file)
            if reference is not None:
                references.append(reference)
        return tuple(references)

    async def _publish_one(
        self, trace_id: TraceId, observation_id: ObservationId, file: AttachedFile
    ) -> str | None:
        if file.type not in _TYPES:
            self._emit(MediaLeftOut("type"))
            return None
        content = await asyncio.to_thread(self._read, file)
        if content is None:
            return None
        try:
            media_id = await self._upload(trace_id, observation_id, MediaContentType(file.type), content)
        except (ApiError, ValidationError, httpx.RequestError):
            self._emit(MediaLeftOut("refused"))
            return None
        return f"@@@langfuseMedia:type={file.type}|id={media_id}|source=bytes@@@"

    async def _upload(
        self, trace_id: TraceId, observation_id: ObservationId, kind: MediaContentType, content: bytes
    ) -> str:
        """The id of the upload; raises what the API and the client raise, an ApiError for a refused upload."""
        media = self._connection.api.media
        checksum = b64encode(sha256(content).digest()).decode()
        answer = await media.get_upload_url(
            trace_id=trace_id,
            observation_id=observation_id,
            content_type=kind,
            content_length=len(content),
            sha256hash=checksum,
            field=_FIELD,
            request_options={"max_retries": 1},
        )
        if answer.upload_url is not None:
            # Harmless whoever does it, and however late: the storage knows the bytes by their hash.
            status = await self._put(answer.upload_url, kind, content, checksum)
            await media.patch(
                answer.media_id,
                uploaded_at=datetime.now(UTC),
                upload_http_status=status,
                request_options={"max_retries": 1},
            )
            if not httpx.codes.is_success(status):
                raise ApiError(status_code=status)
        return str(answer.media_id)

    async def _put(self, url: str, kind: MediaContentType, content: bytes, checksum: str) -> int:
        headers = {"content-type": kind.value}
        if "storage.googleapis.com" not in url:
            # Google's storage refuses what it does not know; the others verify the upload with it.
            headers |= {"x-amz-checksum-sha256": checksum, "x-ms-blob-type": "BlockBlob"}
        # A client of its own: the keys of Langfuse are not for the storage behind it.
        async with httpx.AsyncClient(timeout=self._connection.http.timeout) as storage:
            response = await storage.put(url, content=content, headers=headers)
        return response.status_code

    def _read(self, file: AttachedFile) -> bytes | None:
        """The bytes of a file below the root; None, and counted, where there are none to be sent."""
        root = self._options.root.resolve()
        # The path comes from a document: it may name anything, and is followed below the root only.
        try:
            path = (root / (file.path or "").lstrip("/")).resolve()
            if not path.is_relative_to(root) or not path.is_file():
                self._emit(MediaLeftOut("missing"))
                return None
            if path.stat().st_size > self._options.largest_bytes:
                self._emit(MediaLeftOut("too_large"))
                return None
            return path.read_bytes()
        except (OSError, ValueError):
            self._emit(MediaLeftOut("missing"))
            return None
