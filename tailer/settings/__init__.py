"""Everything that an operator can set, read once at start, each with unit, default and the reason for it.

`load_settings` is the way in, `describe_settings` the way to show what came of it.
"""

from tailer.settings.delivery import SinkChoice
from tailer.settings.loading import Settings, load_settings
from tailer.settings.table import SettingRow, describe_settings

__all__ = ["SettingRow", "Settings", "SinkChoice", "describe_settings", "load_settings"]
