-- $1 agents, whose rows this transaction deletes or inserts out of order
INSERT INTO {schema}.agent_revisions AS r (agent_id, revision)
SELECT DISTINCT agent_id, 1 FROM unnest($1::text[]) AS a (agent_id) ORDER BY agent_id
ON CONFLICT (agent_id) DO UPDATE SET revision = r.revision + 1
