"""The way over HTTP to a destination, whatever speaks there: proxies, certificates, connections, failures, pauses."""
