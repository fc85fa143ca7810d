-- min_sidecar: 0.1.0
-- Everything of one AgentMemory stands in one schema. agent_id leads every key of what belongs to an agent.

CREATE TABLE {schema}.identity (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id          uuid NOT NULL DEFAULT gen_random_uuid(),
    namespace   text NOT NULL,
    name        text NOT NULL,
    mode        text NOT NULL,
    shards      smallint NOT NULL CHECK (shards BETWEEN 1 AND 1024),
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- One row a shard: who owns it, under which epoch, in which opening, and up to where it is durable.
CREATE TABLE {schema}.shards (
    shard             smallint PRIMARY KEY,
    epoch             bigint NOT NULL DEFAULT 0,
    owner             text,
    lease_until       timestamptz NOT NULL DEFAULT '-infinity',
    opening           bigint NOT NULL DEFAULT 0,
    durable_opening   bigint NOT NULL DEFAULT 0,
    durable_sequence  bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- The sidecars there are, so that each takes a fair share of the shards.
CREATE TABLE {schema}.sidecars (
    instance  text PRIMARY KEY,
    seen_at   timestamptz NOT NULL DEFAULT now()
);

-- What each opening found: a position of an earlier opening past it was lost unless its row is here.
CREATE TABLE {schema}.openings (
    shard           smallint NOT NULL,
    opening         bigint NOT NULL,
    run_id          text NOT NULL,
    found_opening   bigint NOT NULL,
    found_sequence  bigint NOT NULL,
    opened_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shard, opening)
);

-- Ranges (after, until] that were trimmed from the journal and that Postgres no longer has.
CREATE TABLE {schema}.gaps (
    shard           smallint NOT NULL,
    after_opening   bigint NOT NULL,
    after_sequence  bigint NOT NULL,
    until_opening   bigint NOT NULL,
    until_sequence  bigint NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shard, after_opening, after_sequence, until_opening, until_sequence)
);

CREATE TABLE {schema}.agent_sessions (
    agent_id       text NOT NULL,
    session_id     text NOT NULL,
    started_at     timestamptz NOT NULL,
    last_event_at  timestamptz NOT NULL,
    ended_at       timestamptz,
    metadata       jsonb,
    PRIMARY KEY (agent_id, session_id)
);

-- payload is json, not jsonb: it comes back as it was sent. fingerprint tells whether an equal id had an equal body.
CREATE TABLE {schema}.memory_events (
    agent_id     text NOT NULL,
    id           uuid NOT NULL,
    opening      bigint NOT NULL,
    sequence     bigint NOT NULL,
    at           timestamptz NOT NULL,
    accepted_at  timestamptz NOT NULL,
    fingerprint  bigint NOT NULL,
    index        smallint NOT NULL,
    type         text NOT NULL,
    role         text,
    session_id   text,
    content      text,
    payload      json,
    metadata     jsonb,
    PRIMARY KEY (agent_id, id)
) WITH (autovacuum_vacuum_insert_threshold = 5000, autovacuum_vacuum_insert_scale_factor = 0.01);
CREATE INDEX memory_events_order ON {schema}.memory_events (agent_id, opening, sequence, index);
CREATE INDEX memory_events_time ON {schema}.memory_events (agent_id, at);

CREATE TABLE {schema}.embedding_models (
    model       smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    dimensions  integer NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- The key covers the vector, so that recall reads nothing but this index. Vectors are stored plain: a detoasted one
-- costs more than its comparison.
CREATE TABLE {schema}.event_embeddings (
    agent_id   text NOT NULL,
    id         uuid NOT NULL,
    model      smallint NOT NULL,
    chunk      smallint NOT NULL,
    embedding  halfvec NOT NULL,
    PRIMARY KEY (agent_id, model, id, chunk) INCLUDE (embedding),
    FOREIGN KEY (agent_id, id) REFERENCES {schema}.memory_events ON DELETE CASCADE
) WITH (autovacuum_vacuum_insert_threshold = 5000, autovacuum_vacuum_insert_scale_factor = 0.01);
ALTER TABLE {schema}.event_embeddings ALTER COLUMN embedding SET STORAGE PLAIN;

-- Events whose vector is still to come; unembeddable says why one never will.
CREATE TABLE {schema}.embedding_queue (
    agent_id       text NOT NULL,
    id             uuid NOT NULL,
    shard          smallint NOT NULL,
    opening        bigint NOT NULL,
    sequence       bigint NOT NULL,
    claimed_until  timestamptz NOT NULL DEFAULT '-infinity',
    claimed_by     text,
    attempts       smallint NOT NULL DEFAULT 0,
    unembeddable   text,
    PRIMARY KEY (agent_id, id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX embedding_queue_pending ON {schema}.embedding_queue (shard, opening, sequence) WHERE unembeddable IS NULL;
CREATE INDEX embedding_queue_unembeddable ON {schema}.embedding_queue (agent_id) WHERE unembeddable IS NOT NULL;

-- Versions of documents. kind: w written, x deleted. writer, fingerprint and the number of events are of the turn that
-- wrote it.
CREATE TABLE {schema}.working_snapshots (
    agent_id     text NOT NULL,
    opening      bigint NOT NULL,
    sequence     bigint NOT NULL,
    shard        smallint NOT NULL,
    kind         "char" NOT NULL CHECK (kind IN ('w', 'x')),
    writer       bytea NOT NULL,
    fingerprint  bytea NOT NULL,
    events       smallint NOT NULL,
    body         bytea NOT NULL,
    taken_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agent_id, opening, sequence)
);
CREATE INDEX working_snapshots_taken ON {schema}.working_snapshots (shard, taken_at);

CREATE TABLE {schema}.dead_letters (
    agent_id     text NOT NULL,
    id           uuid NOT NULL,
    shard        smallint NOT NULL,
    opening      bigint NOT NULL,
    sequence     bigint NOT NULL,
    index        smallint NOT NULL,
    session_id   text,
    accepted_at  timestamptz NOT NULL,
    fingerprint  bigint NOT NULL,
    reason       text NOT NULL,
    sqlstate     text,
    raw          bytea NOT NULL,
    dead_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (agent_id, id)
);

-- What was erased: everything of the agent with this hash at or before the entry.
CREATE TABLE {schema}.tombstones (
    agent      bytea PRIMARY KEY,
    shard      smallint NOT NULL,
    opening    bigint NOT NULL,
    sequence   bigint NOT NULL,
    erased_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE {schema}.agent_knowledge (
    agent_id       text NOT NULL,
    id             uuid NOT NULL,
    key            text,
    topic          text NOT NULL,
    content        text NOT NULL,
    confidence     real NOT NULL DEFAULT 1 CHECK (confidence BETWEEN 0 AND 1),
    sources        uuid[] NOT NULL DEFAULT '{}',
    metadata       jsonb,
    believed_from  timestamptz NOT NULL DEFAULT now(),
    believed_until timestamptz,
    PRIMARY KEY (agent_id, id)
);
CREATE UNIQUE INDEX agent_knowledge_current ON {schema}.agent_knowledge (agent_id, key) WHERE believed_until IS NULL;

CREATE TABLE {schema}.knowledge_embeddings (
    agent_id   text NOT NULL,
    id         uuid NOT NULL,
    model      smallint NOT NULL,
    chunk      smallint NOT NULL,
    embedding  halfvec NOT NULL,
    PRIMARY KEY (agent_id, model, id, chunk) INCLUDE (embedding),
    FOREIGN KEY (agent_id, id) REFERENCES {schema}.agent_knowledge ON DELETE CASCADE
);
ALTER TABLE {schema}.knowledge_embeddings ALTER COLUMN embedding SET STORAGE PLAIN;

-- One row an event with its first vector, for those who query with SQL.
CREATE VIEW {schema}.embedded_events AS
SELECT e.agent_id, e.session_id, e.id, e.type AS event_type, e.role, e.content, e.payload, e.metadata,
       e.at AS created_at, v.model, v.embedding
FROM {schema}.memory_events e
LEFT JOIN {schema}.event_embeddings v ON v.agent_id = e.agent_id AND v.id = e.id AND v.chunk = 0;
