-- min_sidecar: 0.1.0
-- A session that was started has no event yet. start_key and start_fingerprint are of the request that started it, or
-- changed it by starting it again, so that its repetition changes nothing.
ALTER TABLE {schema}.agent_sessions ALTER COLUMN last_event_at DROP NOT NULL;
ALTER TABLE {schema}.agent_sessions ADD COLUMN start_key bytea, ADD COLUMN start_fingerprint bytea;
CREATE INDEX agent_sessions_order ON {schema}.agent_sessions (agent_id, started_at, session_id COLLATE "C");
CREATE INDEX agent_sessions_start ON {schema}.agent_sessions (agent_id, start_key) WHERE start_key IS NOT NULL;

-- Each row is a version of a fact; those of one fact have the same origin, the id of the first. fingerprint tells whether
-- an equal id came from an equal request. A confidence comes back as the number that was sent.
ALTER TABLE {schema}.agent_knowledge ADD COLUMN origin uuid, ADD COLUMN fingerprint bytea;
UPDATE {schema}.agent_knowledge SET origin = id, fingerprint = '';
ALTER TABLE {schema}.agent_knowledge ALTER COLUMN origin SET NOT NULL, ALTER COLUMN fingerprint SET NOT NULL,
    ALTER COLUMN confidence TYPE double precision;
CREATE INDEX agent_knowledge_history ON {schema}.agent_knowledge (agent_id, key, believed_until);

-- Facts whose vector is still to come; unembeddable says why one never will.
CREATE TABLE {schema}.knowledge_queue (
    agent_id       text NOT NULL,
    id             uuid NOT NULL,
    shard          smallint NOT NULL,
    queued_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_until  timestamptz NOT NULL DEFAULT '-infinity',
    claimed_by     text,
    attempts       smallint NOT NULL DEFAULT 0,
    unembeddable   text,
    PRIMARY KEY (agent_id, id),
    FOREIGN KEY (agent_id, id) REFERENCES {schema}.agent_knowledge ON DELETE CASCADE
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX knowledge_queue_pending ON {schema}.knowledge_queue (shard, queued_at) WHERE unembeddable IS NULL;
CREATE INDEX knowledge_queue_unembeddable ON {schema}.knowledge_queue (agent_id) WHERE unembeddable IS NOT NULL;
