"""`tailer completion`: the script with which a shell completes commands and options."""

import argparse
from collections.abc import Callable

import shtab

from tailer.commands.command import Command

_SHELLS = ("bash", "zsh", "tcsh")
_HINT = """\
bash:  tailer completion bash > ~/.local/share/bash-completion/completions/tailer
zsh:   tailer completion zsh > a folder of $fpath, as _tailer
tcsh:  tailer completion tcsh > ~/.tailer.tcsh, and source it"""


def make_command(build_parser: Callable[[], argparse.ArgumentParser]) -> Command:
    """The command for the parser of the whole command line, which holds this command too."""

    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.epilog = _HINT
        parser.add_argument("shell", choices=_SHELLS, help="the shell that the script is for")

    def execute(options: argparse.Namespace) -> int:
        print(shtab.complete(build_parser(), shell=options.shell))
        return 0

    return Command(
        "completion", "print the script with which a shell completes this command", execute, add_options
    )
