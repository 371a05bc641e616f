"""Request bodies before anybody looks inside: content type, compression, and the refusal of either."""

from __future__ import annotations

import gzip
import zlib

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
CONTENT_TYPES = (PROTOBUF, JSON)


class RefusedRequestError(Exception):
    """A request that is answered with `status` and `message` and of which nothing is kept."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def decompress(body: bytes, *, encoding: str | None, limit_bytes: int) -> bytes:
    """The request body without its content encoding; gzip is the only one the server knows."""
    if encoding is None:
        return body
    if encoding.strip().lower() != "gzip":
        raise RefusedRequestError(415, f"Content encoding {encoding!r} is not supported, only gzip is")
    try:
        plain = gzip.decompress(body)
    except (OSError, EOFError, zlib.error) as error:
        raise RefusedRequestError(400, "Failed to decompress request body") from error
    if len(plain) > limit_bytes:
        raise RefusedRequestError(
            413, f"The decompressed body has {len(plain)} bytes, the limit is {limit_bytes}"
        )
    return plain


def media_type(content_type: str) -> str:
    """`content_type` without parameters, when it is one that carries OTLP."""
    media = content_type.split(";", maxsplit=1)[0].strip().lower()
    if media not in CONTENT_TYPES:
        raise RefusedRequestError(400, f"Invalid content type {content_type!r}")
    return media
