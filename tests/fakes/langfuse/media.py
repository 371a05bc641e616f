"""Uploads of files: the place to put one, the bytes that arrive there, and the word that it is done."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes.langfuse.request_body import RefusedRequestError


@dataclass(slots=True)
class MediaStore:
    """What was announced and what was uploaded, by media id."""

    announced: dict[str, dict[str, Any]] = field(default_factory=dict)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)

    def announce(self, body: dict[str, Any], storage_url: str) -> dict[str, Any]:
        """Answer with a place for the bytes, or with none where they are known already."""
        for name in ("traceId", "contentType", "contentLength", "sha256Hash", "field"):
            if not body.get(name):
                raise RefusedRequestError(400, f"media: {name} is missing")
        if body["field"] not in ("input", "output", "metadata"):
            raise RefusedRequestError(400, "media: field is not input, output or metadata")
        digest = base64.b64decode(body["sha256Hash"])
        media_id = base64.urlsafe_b64encode(digest).decode()[:22]
        known = media_id in self.uploaded
        self.announced[media_id] = body
        return {"mediaId": media_id, "uploadUrl": None if known else f"{storage_url}/_storage/{media_id}"}

    def upload(self, media_id: str, content: bytes) -> None:
        """Take the bytes; they must be those that were announced."""
        body = self.announced.get(media_id)
        if body is None:
            raise RefusedRequestError(400, "media: nothing was announced under this id")
        if base64.b64encode(hashlib.sha256(content).digest()).decode() != body["sha256Hash"]:
            raise RefusedRequestError(400, "media: the bytes are not those announced")
        if len(content) != body["contentLength"]:
            raise RefusedRequestError(400, "media: the length is not the one announced")
        self.uploaded[media_id] = content


def add_storage(router: web.UrlDispatcher, store: MediaStore) -> None:
    """The storage behind Langfuse: takes no keys of Langfuse, and says so."""

    async def put(request: web.Request) -> web.Response:
        if "Authorization" in request.headers:
            return web.Response(status=400, text="keys of Langfuse were sent to the storage")
        try:
            store.upload(request.match_info["id"], await request.read())
        except RefusedRequestError as error:
            return web.Response(status=400, text=str(error))
        return web.Response()

    router.add_put("/_storage/{id}", put)
