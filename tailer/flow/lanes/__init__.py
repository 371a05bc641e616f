"""One lane for each kind of work. A lane takes what is due; if it is blocked, it blocks no other lane."""
