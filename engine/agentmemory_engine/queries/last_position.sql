-- $1 the agent's hash: its last position
SELECT opening, sequence FROM {schema}.agent_states WHERE agent = $1
