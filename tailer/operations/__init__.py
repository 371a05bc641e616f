"""What an operator asks for beside running: backfill, checkpoints, dead letters, reconcile, doctor."""
