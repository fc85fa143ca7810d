"""Adds the sidecar to pods that ask for one. Stateless, apart from the operator; it never refuses a pod."""
