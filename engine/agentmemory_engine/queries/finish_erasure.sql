-- $1 agent, $2 its hash, ($3, $4) entry, $5 documents and $6 messages that left Redis at once, $7 events that never left the
-- journal. Done again it counts nothing twice, and erases nothing of a new life: sessions that events named are from before
-- the entry only as long as it is the last one of the agent that is consolidated.
WITH before AS (
    SELECT erased_at FROM {schema}.erasures WHERE (agent, opening, sequence) = ($2, $3, $4)
), letters AS (
    DELETE FROM {schema}.dead_letters WHERE agent_id = $1 AND (opening, sequence) <= ($3, $4) RETURNING id
), snapshots AS (
    DELETE FROM {schema}.working_snapshots WHERE agent_id = $1 AND (opening, sequence) <= ($3, $4) RETURNING kind
), sessions AS (
    DELETE FROM {schema}.agent_sessions
    WHERE agent_id = $1 AND derived AND (SELECT erased_at IS NULL FROM before) RETURNING session_id
)
UPDATE {schema}.erasures
SET documents = $5, messages = $6,
    journalled = CASE WHEN erased_at IS NULL THEN $7 ELSE journalled END,
    dead_letters = dead_letters + (SELECT count(*) FROM letters),
    snapshots = snapshots + (SELECT count(*) FROM snapshots WHERE kind = 'w'),
    sessions = sessions + (SELECT count(*) FROM sessions),
    erased_at = coalesce(erased_at, now()), agent_id = NULL
WHERE (agent, opening, sequence) = ($2, $3, $4)
