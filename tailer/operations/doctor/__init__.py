"""The questions of `tailer doctor`, and how it judges the answers."""
