-- min_sidecar: 0.1.0
-- A document that is no JSON object is set aside as a dead letter of its own kind: it is read and discarded, never replayed.
ALTER TABLE {schema}.dead_letters ADD COLUMN kind text NOT NULL DEFAULT 'event' CHECK (kind IN ('event', 'document'));

-- Sessions that facts are still to be drawn from. request tells one wish from the next of the same session. (opening,
-- sequence, index) is the last event that is done, keys are of the facts that were drawn so far: at the end, what an earlier
-- request drew and this one did not is believed no longer. refused says what was wrong with the last answer; given_up, that
-- there were too many such answers.
CREATE TABLE {schema}.distillation_queue (
    agent_id       text NOT NULL,
    session_id     text NOT NULL,
    shard          smallint NOT NULL,
    request        uuid NOT NULL DEFAULT gen_random_uuid(),
    asked_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_until  timestamptz NOT NULL DEFAULT '-infinity',
    claimed_by     text,
    attempts       smallint NOT NULL DEFAULT 0,
    opening        bigint,
    sequence       bigint,
    index          smallint,
    keys           text[] NOT NULL DEFAULT '{}',
    refused        text,
    given_up       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (agent_id, session_id)
);
CREATE INDEX distillation_queue_due ON {schema}.distillation_queue (due_at) WHERE NOT given_up;
CREATE INDEX distillation_queue_order ON {schema}.distillation_queue (asked_at, agent_id, session_id);
