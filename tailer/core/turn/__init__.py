"""From rows to a turn: what is read for it, what became of it, what it used, which calls it took."""
