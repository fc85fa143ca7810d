-- min_sidecar: 0.1.0
-- Mode Postgres, where a turn is accepted by Postgres itself. Agents stand here by their hash.

-- One row an agent: its last position, and until when its document is leased. A position's opening is the timeline of the
-- server, which grows when a standby is promoted or a backup restored; found_opening and found_sequence are the last
-- position before that.
CREATE TABLE {schema}.agent_states (
    agent           bytea PRIMARY KEY,
    opening         bigint NOT NULL,
    sequence        bigint NOT NULL,
    found_opening   bigint NOT NULL DEFAULT 0,
    found_sequence  bigint NOT NULL DEFAULT 0,
    lease_until     timestamptz
) WITH (fillfactor = 50);

-- What each new timeline found of an agent: a position before it and past this was lost.
CREATE TABLE {schema}.agent_openings (
    agent           bytea NOT NULL,
    opening         bigint NOT NULL,
    found_opening   bigint NOT NULL,
    found_sequence  bigint NOT NULL,
    opened_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agent, opening)
);

-- Idempotency keys within their window. The version is the document's after the turn, if there was one.
CREATE TABLE {schema}.turn_keys (
    agent             bytea NOT NULL,
    key               bytea NOT NULL,
    fingerprint       bytea NOT NULL,
    opening           bigint NOT NULL,
    sequence          bigint NOT NULL,
    version_opening   bigint,
    version_sequence  bigint,
    known_until       timestamptz NOT NULL,
    PRIMARY KEY (agent, key)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX turn_keys_until ON {schema}.turn_keys (known_until);
