"""What the demo tells the person in front of it: before, between the turns, and at the end.

Owns the words and the way to the terminal. Refuses to decide when to say something.
"""

import shutil
from collections import deque
from dataclasses import asdict
from datetime import datetime
from shlex import quote
from typing import Final, TextIO

from tailer.demo.destination import ENVIRONMENT, Destination
from tailer.demo.display import LEGEND, WIDTH, Display, colourful, fit, label, plain
from tailer.demo.finished_turn import FinishedTurn
from tailer.demo.summary import Summary
from tailer.events import Event
from tailer.printable import is_coloured, make_printable

_DIM: Final = "2"
_YELLOW: Final = "33"
_REMEMBERED_TROUBLES: Final = 20


class Screen:
    """Writes to one stream; on a terminal in its width and, unless `NO_COLOR` is set, in colour."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._paint = colourful if is_coloured(stream) else plain
        columns = shutil.get_terminal_size((WIDTH, 24)).columns if stream.isatty() else WIDTH
        self._display = Display(columns, self._paint)
        self._troubles: deque[str] = deque(maxlen=_REMEMBERED_TROUBLES)

    def say(self, *lines: str, colour: str | None = None) -> None:
        """Write lines at once; characters that the stream cannot encode become question marks."""
        encoding = self._stream.encoding or "utf-8"
        for line in lines:
            text = self._paint(colour, line) if colour is not None and line else line
            self._stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        self._stream.flush()

    def introduce(self, destination: Destination, *, sessions: int) -> None:
        """What will happen, for a person who sees this for the first time."""
        self.say(
            f"Plays {sessions} recorded sessions of a real LibreChat (models simulated) into a real",
            "MongoDB, while the real daemon tails it. Each line below is a turn, a question",
            "and its answer, that the daemon has rebuilt and whose trace has arrived.",
            "",
            label("traces", _describe(destination)),
            label("log", str(destination.log_file)),
        )

    def show_page(self, port: int) -> None:
        """The address at which a browser on this machine shows the daemon and its last traces."""
        self.say(label("page", f"http://127.0.0.1:{port}/ (in a browser; it is there while this runs)"))

    def begin(self, database: str, *, seconds: float, keep: bool) -> None:
        """The server runs and the daemon reads: from here on lines appear. A round takes `seconds`."""
        course = (
            f"Playing until Ctrl-C; a round takes {seconds:.0f} seconds."
            if keep
            else f"Playing for {seconds:.0f} seconds; Ctrl-C ends it early."
        )
        self.say(label("source", database), "", course)
        self.say(*LEGEND, colour=_DIM)
        self.say(self._display.heading())

    def show_turn(self, turn: FinishedTurn, at: datetime) -> None:
        """One line."""
        self.say(self._display.turn(turn, at))

    def show_trouble(self, event: Event) -> None:
        """A warning or an error of the daemon, on one line and only once. The log has the numbers and repetitions."""
        words = [
            f"{name}={make_printable(value)}"
            for name, value in asdict(event).items()
            if isinstance(value, str)
        ]
        line = fit(
            " ".join([f"{event.level}: {event.name.replace('_', ' ')}", *words]), self._display.columns
        ).rstrip()
        if line not in self._troubles:
            self._troubles.append(line)
            self.say(line, colour=_YELLOW)

    def note(self, text: str) -> None:
        """A remark between the turns."""
        self.say(text, colour=_DIM)

    def conclude(self, destination: Destination, summary: Summary) -> None:
        """The result, where it is, and what to do next."""
        self.say("", *summary.lines(), label("traces", _describe(destination)))
        if destination.trace_file is not None and summary.traces:
            command = f"head -1 {quote(str(destination.trace_file))} | python3 -m json.tool"
            self.say(label("", "a JSON line each; the first one, to read:"), label("", command))
        self.say(
            label("log", str(destination.log_file)),
            label("next", 'README.md, "Run it beside LibreChat", says how;'),
            label("", "`tailer check-config` lists every setting"),
        )


def _describe(destination: Destination) -> str:
    if destination.trace_file is not None:
        return f"{destination.trace_file}"
    return f"Langfuse at {destination.settings.langfuse_url}, environment {ENVIRONMENT}"
