"""The composition root and the life of a process: start, stand by, one term after another, shutdown."""
