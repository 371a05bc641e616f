"""One lane for each kind of work: it takes what is due, and whatever blocks it blocks no other."""
