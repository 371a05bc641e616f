"""The daemon's own HTTP server: liveness, readiness, metrics."""
