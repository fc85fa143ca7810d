-- Whether rows can be written: a lock is refused where they cannot. No agent has this hash, so that nobody is waited for.
SELECT FROM {schema}.agent_states WHERE agent = '' FOR UPDATE
