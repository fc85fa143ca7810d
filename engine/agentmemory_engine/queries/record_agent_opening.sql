-- $1 the agent's hash, $2 a timeline that is new to it, ($3, $4) its last position before
INSERT INTO {schema}.agent_openings (agent, opening, found_opening, found_sequence) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
