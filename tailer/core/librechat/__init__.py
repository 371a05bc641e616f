"""LibreChat's documents, read tolerantly: rows, content parts, transactions, agents, users."""
