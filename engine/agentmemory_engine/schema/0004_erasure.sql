-- min_sidecar: 0.1.0
-- Erasures: a row is a mark from acceptance on, and the receipt once the erasure is carried out. Only a mark names its agent.
CREATE TABLE {schema}.erasures (
    agent         bytea NOT NULL,
    opening       bigint NOT NULL,
    sequence      bigint NOT NULL,
    shard         smallint NOT NULL,
    key           bytea NOT NULL,
    agent_id      text CHECK ((agent_id IS NULL) = (erased_at IS NOT NULL)),
    asked_at      timestamptz NOT NULL,
    erased_at     timestamptz,
    documents     bigint NOT NULL DEFAULT 0,
    messages      bigint NOT NULL DEFAULT 0,
    journalled    bigint NOT NULL DEFAULT 0,
    events        bigint NOT NULL DEFAULT 0,
    embeddings    bigint NOT NULL DEFAULT 0,
    snapshots     bigint NOT NULL DEFAULT 0,
    dead_letters  bigint NOT NULL DEFAULT 0,
    sessions      bigint NOT NULL DEFAULT 0,
    knowledge     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (agent, opening, sequence)
);
CREATE INDEX erasures_pending ON {schema}.erasures (shard, opening, sequence) WHERE erased_at IS NULL;

-- Whether consolidation made the session, from events that name it. Such a row of an erased agent came from before the
-- erasure; any other one that is there after the mark is newer.
ALTER TABLE {schema}.agent_sessions ADD COLUMN derived boolean NOT NULL DEFAULT false;

-- For the cascade: before version 18, Postgres would read all vectors of the agent for each row that is deleted.
CREATE INDEX event_embeddings_event ON {schema}.event_embeddings (agent_id, id);
CREATE INDEX knowledge_embeddings_fact ON {schema}.knowledge_embeddings (agent_id, id);
