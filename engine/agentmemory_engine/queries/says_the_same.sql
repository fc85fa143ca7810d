-- $1 agent, $2 id, then what is to be believed: $3 topic, $4 content, $5 confidence, $6 sources, $7 metadata
SELECT topic = $3 AND content = $4 AND confidence = $5 AND sources = $6::uuid[] AND metadata IS NOT DISTINCT FROM $7::jsonb
FROM {schema}.agent_knowledge WHERE agent_id = $1 AND id = $2
