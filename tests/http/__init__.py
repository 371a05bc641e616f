"""Over real HTTP, against the fake Langfuse or the daemon's own server; no MongoDB."""
