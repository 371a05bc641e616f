"""What the status page shows, as values: an hour of history, errors by kind, the last traces, and the report of it
all."""
