"""Uploads of images and files through the langfuse package, where the operator has switched them on and mounted
LibreChat's files here.

A file is uploaded before its trace is sent, and only what was taken is referred to: a trace never points at nothing.
Uploading the same bytes twice is harmless: Langfuse knows them by their hash. A file that is missing, too large or of
a type that Langfuse does not take is left out and counted. What may be taken later is for the caller to try again.
"""

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import httpx

from tailer.core.identity import ObservationId, TraceId
from tailer.core.librechat.attached_files import AttachedFile
from tailer.errors import DestinationError
from tailer.events import Emit, MediaLeftOut
from tailer.flow.sending.outcomes import Refused, Retry, StorageAway
from tailer.langfuse.answers import Meaning
from tailer.langfuse.connection import LangfuseConnection
from tailer.langfuse.package import ONCE, LangfusePackage, Reply
from tailer.outbound.client import open_client
from tailer.outbound.failures import LANGFUSE_SETTINGS, SettingNames, describe_failure

if TYPE_CHECKING:
    from langfuse.api import AsyncLangfuseAPI, GetMediaUploadUrlResponse, MediaContentType
    from langfuse.api.core.http_response import AsyncHttpResponse

_FIELD = "metadata"
_UPLOAD_TIMEOUT = timedelta(seconds=30)
_STORAGE = SettingNames(
    "LANGFUSE_S3_MEDIA_UPLOAD_ENDPOINT of Langfuse's own settings",
    LANGFUSE_SETTINGS.authorities,
    LANGFUSE_SETTINGS.certificate,
)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """Where LibreChat's files are mounted, and how large one may be."""

    root: Path
    largest_bytes: int


class LangfuseMedia:
    """A `MediaLibrary` that uploads to one Langfuse project."""

    def __init__(self, connection: LangfuseConnection, options: MediaOptions, emit: Emit) -> None:
        self._connection = connection
        self._package = LangfusePackage(connection)
        self._options = options
        self._emit = emit
        self._types = _known_types()

    async def publish(
        self, trace_id: TraceId, observation_id: ObservationId, files: Sequence[AttachedFile]
    ) -> tuple[str, ...] | Retry | Refused | StorageAway:
        """The references of the files that Langfuse now has, in Langfuse's own notation.

        A file that is left out counts only with the final answer: a turn whose files are tried again counts once.
        """
        references: list[str] = []
        left_out: list[str] = []
        for file in files:
            try:
                media_id = await self._publish_one(trace_id, observation_id, file)
            except _LeftOut as error:
                left_out.append(error.reason)
                continue
            if not isinstance(media_id, str):
                return media_id
            references.append(f"@@@langfuseMedia:type={file.type}|id={media_id}|source=bytes@@@")
        for reason in left_out:
            self._emit(MediaLeftOut(reason))
        return tuple(references)

    async def _publish_one(
        self, trace_id: TraceId, observation_id: ObservationId, file: AttachedFile
    ) -> str | Retry | Refused | StorageAway:
        """The id of the upload; raises _LeftOut for a file that Langfuse will never have."""
        if file.type not in self._types:
            raise _LeftOut("type")
        content = await asyncio.to_thread(_read, self._options, file)
        checksum = b64encode(sha256(content).digest()).decode()
        announced = await self._ask(
            lambda api: api.media.with_raw_response.get_upload_url(
                trace_id=trace_id,
                observation_id=observation_id,
                content_type=cast("MediaContentType", file.type),
                content_length=len(content),
                sha256hash=checksum,
                field=_FIELD,
                request_options=ONCE,
            )
        )
        if not isinstance(announced, Reply):
            return announced
        place = announced.data
        if place is None:
            # Taken, and told in a shape that this release does not know.
            raise _LeftOut("refused")
        if place.upload_url is not None:
            # Harmless for any instance and at any time: the storage knows the bytes by their hash.
            stored = await self._store(place, str(file.type), content, checksum)
            if stored is not None:
                return stored
        return str(place.media_id)

    async def _store(
        self, place: "GetMediaUploadUrlResponse", kind: str, content: bytes, checksum: str
    ) -> Retry | Refused | StorageAway | None:
        """Put the bytes where Langfuse said, and report the result to it; None once they are there."""
        try:
            status = await self._put(str(place.upload_url), kind, content, checksum)
        except httpx.RequestError as error:
            return StorageAway(type(error).__name__, describe_failure(error, _STORAGE))
        except (httpx.InvalidURL, DestinationError) as error:
            return StorageAway(type(error).__name__)
        told = await self._ask(
            lambda api: api.media.with_raw_response.patch(
                place.media_id,
                uploaded_at=datetime.now(UTC),
                upload_http_status=status,
                request_options=ONCE,
            )
        )
        if not isinstance(told, Reply):
            return told
        if httpx.codes.is_success(status):
            return None
        if status in (408, 425, 429) or status >= 500:  # noqa: PLR2004 - HTTP: the storage's own trouble
            return StorageAway(f"http_{status}")
        raise _LeftOut("refused")

    async def _ask(
        self, operation: "Callable[[AsyncLangfuseAPI], Awaitable[AsyncHttpResponse[Result]]]"
    ) -> Reply[Result] | Retry | Refused:
        """Langfuse's answer; raises _LeftOut for what it will never accept."""
        reply = await self._package.ask(operation)
        if isinstance(reply, Retry):
            return reply
        answer = reply.answer
        match answer.meaning:
            case Meaning.TAKEN:
                return reply
            case Meaning.WRONG_KEYS | Meaning.USAGE_THRESHOLD | Meaning.GATE | Meaning.PROXY:
                return Refused(answer.reason, answer.remedy)
            case Meaning.TOO_LARGE | Meaning.INVALID | Meaning.NOT_THERE:
                raise _LeftOut("refused")
            case _:
                return Retry(answer.reason, answer.after_seconds, remedy=answer.remedy)

    async def _put(self, url: str, kind: str, content: bytes, checksum: str) -> int:
        headers = {"content-type": kind}
        if "storage.googleapis.com" not in url:
            # Google's storage refuses unknown headers; the others verify the upload with it.
            headers |= {"x-amz-checksum-sha256": checksum, "x-ms-blob-type": "BlockBlob"}
        # A client of its own: the keys of Langfuse are not for the storage behind it.
        # What a gateway before Langfuse asks for is for the storage only where both stand behind it.
        connection = self._connection
        behind_gateway = httpx.URL(url).netloc == httpx.URL(connection.credentials.host).netloc
        async with open_client(
            url,
            connection.certificates,
            timeout=_UPLOAD_TIMEOUT,
            connections=1,
            headers=connection.access.headers if behind_gateway else {},
        ) as storage:
            response = await storage.put(url, content=content, headers=headers)
        return response.status_code


class _LeftOut(Exception):
    """A file that is not uploaded, now or ever; `reason` is one of the label's values."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _known_types() -> frozenset[str]:
    """The types of media that Langfuse takes, as its own package lists them."""
    # Only who uploads media needs them: the package takes 8 MB and a tenth of a second of CPU.
    from langfuse.api.media.types.media_content_type import MediaContentType  # noqa: PLC0415

    return frozenset(str(kind) for kind in MediaContentType.__members__.values())


def _read(options: MediaOptions, file: AttachedFile) -> bytes:
    """The bytes of a file below the root, read on a thread; raises _LeftOut where there are none to be sent."""
    # The path comes from a document and may name anything. It is followed only below the root.
    try:
        root = options.root.resolve()
        path = (root / (file.path or "").lstrip("/")).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            raise _LeftOut("missing")
        if path.stat().st_size > options.largest_bytes:
            raise _LeftOut("too_large")
        return path.read_bytes()
    except (OSError, ValueError):
        raise _LeftOut("missing") from None
