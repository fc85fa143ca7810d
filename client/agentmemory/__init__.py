"""AgentMemory for agent code: a light client and the command line tool."""
