-- $1 the agent's hash: nobody else accepts a turn of it until the end of the transaction
SELECT FROM {schema}.agent_states WHERE agent = $1 FOR UPDATE
