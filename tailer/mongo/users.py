"""Reads users and their groups, with a projection that leaves out every secret, and remembers them for a while."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from bson import ObjectId
from cachetools import TTLCache

from tailer.core.librechat.bson_values import filled_string
from tailer.core.policy.users import MEMBER_FIELD, USER_FIELDS, User, read_user
from tailer.mongo.collections import Collections
from tailer.mongo.reading import Reading

_REMEMBERED_USERS = 10_000
_REMEMBERED_SECONDS = 600
_MOST_GROUPS = 1_000


class Users:
    """Users by id. Names and roles seldom change, so each user is read once in ten minutes."""

    def __init__(self, collections: Collections, *, wanted: bool, with_groups: bool = False) -> None:
        self._collections = collections
        self._wanted = wanted
        self._with_groups = with_groups
        self._known: TTLCache[str, User] = TTLCache(maxsize=_REMEMBERED_USERS, ttl=_REMEMBERED_SECONDS)

    async def read(self, user_ids: Iterable[str | None]) -> Mapping[str, User]:
        """The users that exist and may be read; none if no setting needs more than the id.

        A user whose groups could not be read is not remembered: they may be granted.
        """
        wanted = [user_id for user_id in user_ids if user_id is not None] if self._wanted else []
        users = {user_id: user for user_id in wanted if (user := self._known.get(user_id)) is not None}
        missing = [user_id for user_id in wanted if user_id not in users]
        if missing:
            keys = [ObjectId(user_id) if ObjectId.is_valid(user_id) else user_id for user_id in missing]
            names = (*USER_FIELDS, MEMBER_FIELD) if self._with_groups else USER_FIELDS
            fields = dict.fromkeys(names, 1)
            for document in await self._collections.find("users", {"_id": {"$in": keys}}, fields):
                user = read_user(str(document["_id"]), document)
                if self._with_groups:
                    user = replace(user, groups=await self._read_groups(user))
                users[user.user_id] = user
                if user.groups is not None or not self._with_groups:
                    self._known[user.user_id] = user
        return users

    async def _read_groups(self, user: User) -> tuple[str, ...] | None:
        """The groups of a user, None if they may not be read, or are too many to know all. Members stand there by their
        id in the directory, or by LibreChat's own."""
        ids = [user.user_id, *([user.id_on_the_source] if user.id_on_the_source is not None else [])]
        query = {"memberIds": {"$in": ids}}

        def find(reading: Reading) -> list[dict[str, Any]] | None:
            if not reading.may_read("groups"):
                return None
            return reading.find("groups", query, {"name": 1}, limit=_MOST_GROUPS + 1)

        found = await self._collections.run(find)
        if found is None or len(found) > _MOST_GROUPS:
            return None
        names = (filled_string(document.get("name")) for document in found)
        return tuple(sorted({name for name in names if name is not None}))
