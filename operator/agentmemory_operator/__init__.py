"""The operator: reconciles AgentMemory resources, and the injector that adds the sidecar to pods."""
