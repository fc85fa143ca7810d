-- $1 the agent's hash: it has no live document any more
UPDATE {schema}.agent_states SET lease_until = NULL WHERE agent = $1
