"""Measures AgentMemory against its references: ratios of one run, on one machine, with the placement beside them."""
