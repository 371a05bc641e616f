"""What a command is to the command line: a name, options, and an action."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

AddOptions: TypeAlias = Callable[[argparse.ArgumentParser], None]
Execute: TypeAlias = Callable[[argparse.Namespace], int]


@dataclass(frozen=True, slots=True)
class Command:
    """One command: `execute` gets the parsed options and returns the exit code; it raises TailerError.

    Modules that a command needs are imported inside `execute`, so that a small command starts quickly.
    """

    name: str
    summary: str
    execute: Execute
    add_options: AddOptions = lambda _: None
