"""Stand-ins for the services the tailer talks to, strict enough to fail what the real ones would lose."""
