-- min_sidecar: 0.1.0
-- How often rows of an agent were deleted, or inserted elsewhere than at the end: by erasure, retention or the replay of a
-- dead letter. Who follows an agent's rows by position begins again when this number has changed.
CREATE TABLE {schema}.agent_revisions (
    agent_id  text PRIMARY KEY,
    revision  bigint NOT NULL
);
