"""The sidecar: the memory API on localhost, the consolidation loop and their metrics."""
