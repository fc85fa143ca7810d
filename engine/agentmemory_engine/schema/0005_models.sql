-- min_sidecar: 0.1.0
-- The model of embeddings can change in place. What is new is queued for each model that is `kept` up; what was there before
-- is gone through by a back-fill in the order of keys: `stage` 0, the events, 1, the facts, 2, all of it. `completed_at`: all
-- that was there is embedded, too, or cannot be. Vectors of one that is not kept go only when that is asked for.
ALTER TABLE {schema}.embedding_models
    ADD COLUMN kept          boolean NOT NULL DEFAULT false,
    ADD COLUMN completed_at  timestamptz,
    ADD COLUMN stage         smallint NOT NULL DEFAULT 0,
    ADD COLUMN after_agent   text NOT NULL DEFAULT '',
    ADD COLUMN after_id      uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    ADD COLUMN scanned       bigint NOT NULL DEFAULT 0,
    ADD COLUMN total         bigint,
    ADD COLUMN unwanted_at   timestamptz,
    ADD COLUMN removed_at    timestamptz;

-- The model that recall goes by, for the whole memory.
CREATE TABLE {schema}.embedding_switch (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    model        smallint NOT NULL REFERENCES {schema}.embedding_models,
    switched_at  timestamptz NOT NULL DEFAULT now()
);

-- Who embeds by which model, so that one that nobody has any more is not kept up for ever.
CREATE TABLE {schema}.model_users (
    instance  text PRIMARY KEY,
    model     smallint,
    seen_at   timestamptz NOT NULL DEFAULT now()
);

-- What is queued is queued for one model. What waits now is found by the back-fill.
DELETE FROM {schema}.embedding_queue
WHERE unembeddable IS NULL OR NOT EXISTS (SELECT FROM {schema}.embedding_models);
ALTER TABLE {schema}.embedding_queue ADD COLUMN model smallint NOT NULL DEFAULT 0,
    ADD COLUMN backfill boolean NOT NULL DEFAULT false;
UPDATE {schema}.embedding_queue SET model = (SELECT max(model) FROM {schema}.embedding_models);
ALTER TABLE {schema}.embedding_queue DROP CONSTRAINT embedding_queue_pkey, ADD PRIMARY KEY (agent_id, id, model);
DROP INDEX {schema}.embedding_queue_pending;
CREATE INDEX embedding_queue_pending ON {schema}.embedding_queue (model, shard, opening, sequence)
    WHERE unembeddable IS NULL AND NOT backfill;
CREATE INDEX embedding_queue_backfill ON {schema}.embedding_queue (model, shard, opening, sequence)
    WHERE unembeddable IS NULL AND backfill;

DELETE FROM {schema}.knowledge_queue
WHERE unembeddable IS NULL OR NOT EXISTS (SELECT FROM {schema}.embedding_models);
ALTER TABLE {schema}.knowledge_queue ADD COLUMN model smallint NOT NULL DEFAULT 0,
    ADD COLUMN backfill boolean NOT NULL DEFAULT false;
UPDATE {schema}.knowledge_queue SET model = (SELECT max(model) FROM {schema}.embedding_models);
ALTER TABLE {schema}.knowledge_queue DROP CONSTRAINT knowledge_queue_pkey, ADD PRIMARY KEY (agent_id, id, model);
DROP INDEX {schema}.knowledge_queue_pending;
CREATE INDEX knowledge_queue_pending ON {schema}.knowledge_queue (model, shard, queued_at)
    WHERE unembeddable IS NULL AND NOT backfill;
CREATE INDEX knowledge_queue_backfill ON {schema}.knowledge_queue (model, shard, queued_at)
    WHERE unembeddable IS NULL AND backfill;

-- A vector of more than 1,280 dimensions is larger than a row of a btree can be: it stands in `wide`, which no key covers.
ALTER TABLE {schema}.event_embeddings ALTER COLUMN embedding DROP NOT NULL, ADD COLUMN wide halfvec,
    ADD CHECK ((embedding IS NULL) <> (wide IS NULL)) NOT VALID;
ALTER TABLE {schema}.event_embeddings ALTER COLUMN wide SET STORAGE MAIN;
ALTER TABLE {schema}.knowledge_embeddings ALTER COLUMN embedding DROP NOT NULL, ADD COLUMN wide halfvec,
    ADD CHECK ((embedding IS NULL) <> (wide IS NULL)) NOT VALID;
ALTER TABLE {schema}.knowledge_embeddings ALTER COLUMN wide SET STORAGE MAIN;

CREATE OR REPLACE VIEW {schema}.embedded_events AS
SELECT e.agent_id, e.session_id, e.id, e.type AS event_type, e.role, e.content, e.payload, e.metadata,
       e.at AS created_at, v.model, coalesce(v.embedding, v.wide) AS embedding
FROM {schema}.memory_events e
LEFT JOIN {schema}.event_embeddings v ON v.agent_id = e.agent_id AND v.id = e.id AND v.chunk = 0;
