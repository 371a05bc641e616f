"""From a table of the file to a destination, with what the environment says where the table says nothing."""

from tailer.settings.destinations.destination import DestinationSettings, FileDestination
from tailer.settings.destinations.langfuse_project import make_project
from tailer.settings.destinations.otel_environment import UnfitVariableError
from tailer.settings.destinations.otlp_server import make_server
from tailer.settings.destinations.resolution import Resolution, UnusableDestinationError
from tailer.settings.destinations.tables import FileTable, LangfuseTable, OtlpTable


def resolve(making: Resolution) -> DestinationSettings | None:
    """The destination; None if it cannot be made, for the problems that `making` then holds."""
    try:
        made = _make(making)
    except UnusableDestinationError:
        return None
    except UnfitVariableError as error:
        making.refuse(error.name, error.problem, error.remedy)
        return None
    return None if making.problems else made


def _make(making: Resolution) -> DestinationSettings:
    choices = making.choices()
    match making.table:
        case LangfuseTable() as table:
            return make_project(making, table, choices)
        case OtlpTable() as table:
            return make_server(making, table, choices)
        case FileTable(path=stated):
            path = making.take("path", stated, making.around.file_path, "TAILER_FILE_PATH")
            return FileDestination(making.name, choices, path)
