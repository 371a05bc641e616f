"""What the status page shows, as values: an hour of history, errors by kind, the last traces, and the report of it all.

Owns no clock, no socket and no metric: figures come in as values, and a report goes out as a JSON-like value.
"""
