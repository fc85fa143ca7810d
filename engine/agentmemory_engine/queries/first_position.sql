-- $1 agent, $2 ids of events of one turn: where it stands
SELECT opening, sequence FROM {schema}.memory_events WHERE agent_id = $1 AND id = ANY ($2::uuid[])
ORDER BY opening, sequence LIMIT 1
