"""From a turn to the spans of its trace, and to what is said of it later."""
