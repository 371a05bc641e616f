"""From a turn to the spans of its trace, and to its later changes."""
