"""What an operator runs beside the daemon: backfill, checkpoints, dead letters, reconcile, doctor."""
