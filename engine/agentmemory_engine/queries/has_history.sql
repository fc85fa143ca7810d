SELECT EXISTS (SELECT FROM {schema}.memory_events WHERE agent_id = $1) AS events
