"""The settings of sharing: which part of the conversations this instance works on."""

import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field, ValidationInfo, field_validator

from tailer.core.stream.shard import MOST_SHARDS, Shard
from tailer.settings.environment import Group, Setting
from tailer.settings.group import SettingsGroup
from tailer.settings.kinds import Kind, UnfitValueError, quote, whole_number

_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?-(\d{1,6})")


@dataclass(frozen=True, slots=True)
class Ordinal:
    """The number of an instance. `pod` is the name that ends in it, if it was given as one."""

    number: int
    pod: str | None = None

    def __str__(self) -> str:
        """As it was given."""
        return self.pod or str(self.number)


def ordinal() -> Kind:
    """A number from 0, or the name of a pod of a StatefulSet."""
    accepts = "a number from 0, or the name of a pod that ends in its ordinal, such as librechat-tailer-2"

    def convert(value: object) -> Ordinal:
        if isinstance(value, Ordinal):
            return value
        given = str(value)
        if given.isascii() and given.isdigit():
            return Ordinal(int(given))
        found = _NAME.fullmatch(given)
        if found is None:
            raise UnfitValueError(f"is {quote(value)}, which is neither a number nor ends in one")
        return Ordinal(int(found[1]), given)

    return Kind(accepts, convert)


class ShardingSettings(SettingsGroup):
    """How several instances share the work on one database."""

    total_shards: Annotated[
        int, Setting(Group.OPERATION, whole_number(1, MOST_SHARDS), ("TAILER_TOTAL_SHARDS",))
    ] = Field(
        default=1,
        description="How many parts the conversations are divided into, each with active and standby instances of its "
        "own; all instances need the same number. 1: one active instance does everything, which is enough "
        "for hundreds of turns a second (docs/scaling.md says from where on more are worth it).",
    )
    shard_ordinal: Annotated[Ordinal, Setting(Group.OPERATION, ordinal(), ("TAILER_SHARD",))] = Field(
        default=Ordinal(0),
        description="Which part this instance works on, counted from 0. In a StatefulSet it may be the name of the "
        "pod: its ordinal modulo TAILER_TOTAL_SHARDS counts, so that with 2 shards pods 0 and 2 are "
        "active and standby of the first. 0: the only part where there is one.",
    )

    @field_validator("shard_ordinal")
    @classmethod
    def _check_shard(cls, given: Ordinal, info: ValidationInfo) -> Ordinal:
        total = info.data.get("total_shards")
        if total is not None and given.pod is None and given.number >= total:
            raise UnfitValueError(
                problem=f"is {given.number}, and TAILER_TOTAL_SHARDS is {total}",
                remedy=f"give a number from 0 to {total - 1}, or set TAILER_TOTAL_SHARDS to the number of shards",
            )
        return given

    @property
    def shard(self) -> Shard:
        """The share of this instance."""
        return Shard(self.shard_ordinal.number % self.total_shards, self.total_shards)
