"""Shell completion, by a real bash that is asked for it as by the Tab key."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.daemon import make_environment

BASH = shutil.which("bash")


def script_for(shell: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tailer", "completion", shell],
        env=make_environment({}),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(BASH is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tailer", "do"], {"doctor"}),
        (["tailer", "check"], {"check-config", "checkpoint"}),
        (["tailer", "dead-letters", "re"], {"replay"}),
        (["tailer", "doctor", "--st"], {"--strict"}),
        (["tailer", "completion", ""], {"bash", "zsh", "tcsh"}),
    ],
)
def test_bash_completes_commands_and_options(words: list[str], expected: set[str], tmp_path: Path) -> None:
    script = tmp_path / "tailer.bash"
    script.write_text(script_for("bash"), encoding="utf-8")
    asked = " ".join(f"'{word}'" for word in words)
    program = "\n".join(
        [
            f"source {script}",
            f"COMP_WORDS=({asked}); COMP_CWORD={len(words) - 1}; COMP_LINE='{' '.join(words)}'",
            "COMP_POINT=${#COMP_LINE}",
            'set -- $(complete -p tailer); while [ "$1" != -F ]; do shift; done',
            f"\"$2\" tailer '{words[-1]}' '{words[-2]}'",
            "printf '%s\\n' \"${COMPREPLY[@]}\"",
        ]
    )
    done = subprocess.run([str(BASH), "-c", program], capture_output=True, text=True, check=False)

    assert set(done.stdout.split()) >= expected, done.stderr
    if words[-1]:
        assert all(word.startswith(words[-1]) for word in done.stdout.split())


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script_that_names_every_command(shell: str) -> None:
    script = script_for(shell)

    assert all(command in script for command in ("run", "doctor", "dead-letters", "reconcile", "checkpoint"))
