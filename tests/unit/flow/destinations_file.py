"""The file of `TAILER_DESTINATIONS` for tests: each destination is a file, in whose place the scene puts memory."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType


def write_destinations(
    path: Path,
    names: Sequence[str],
    *,
    otherwise: Collection[str] = (),
    routes: Mapping[str, Collection[str]] = MappingProxyType({}),
    without_content: Collection[str] = (),
) -> Path:
    """Write it, and give its path. `routes` are by endpoint; without `otherwise` every destination gets the rest."""
    lines = [f"otherwise = {list(otherwise or names)}"]
    for name in names:
        lines += [f"[destinations.{name}]", 'kind = "file"', f'path = "{path.parent / name}"']
        lines += ['content = "none"'] if name in without_content else []
    for endpoint, to in routes.items():
        lines += ["[[routes]]", f'when = {{ endpoint = ["{endpoint}"] }}', f"to = {list(to)}"]
    path.write_text("\n".join(lines) + "\n")
    return path
