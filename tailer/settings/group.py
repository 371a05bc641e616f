"""What the groups of settings have in common."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class SettingsGroup(BaseModel):
    """A group of settings. It is a base of `Settings` and nothing by itself, so pydantic makes no validator of its own
    for it: that takes memory as long as the process lives."""

    model_config: ClassVar[ConfigDict] = ConfigDict(defer_build=True)
