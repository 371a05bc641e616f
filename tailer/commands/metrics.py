"""`tailer metrics`: every metric that the daemon can expose, with its meaning."""

import argparse
import json
from textwrap import wrap

from tailer.commands.command import Command
from tailer.commands.terminal import paint
from tailer.metrics.listing import list_metrics

_WIDTH = 100


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def _execute(options: argparse.Namespace) -> int:
    metrics = list_metrics()
    if options.json:
        print(json.dumps({"metrics": metrics}, indent=2))
        return 0
    section = None
    for metric in metrics:
        if metric["section"] != section:
            section = metric["section"]
            print(("\n" if metric is not metrics[0] else "") + paint("1", section))
        labels = "{" + ", ".join(metric["labels"]) + "}" if metric["labels"] else ""
        print(f"  {metric['name']}{labels}  ({metric['kind']})")
        print("\n".join(wrap(metric["meaning"], _WIDTH, initial_indent="      ", subsequent_indent="      ")))
    return 0


COMMAND = Command("metrics", "list every metric with its meaning", _execute, _add_options)
