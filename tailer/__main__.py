"""`python -m tailer`, and the `tailer` command."""

import sys

from tailer.cli import execute


def main() -> int:
    """Run the command that the process was started with; returns its exit code."""
    return execute(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
