"""A research agent's work over five days, played on a real memory."""
