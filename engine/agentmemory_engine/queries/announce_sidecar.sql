-- $1 instance, $2 lease (interval). Answers how many sidecars there are, this one included.
WITH announced AS (
    INSERT INTO {schema}.sidecars (instance) VALUES ($1)
    ON CONFLICT (instance) DO UPDATE SET seen_at = now()
), forgotten AS (
    DELETE FROM {schema}.sidecars WHERE seen_at < now() - 10 * $2::interval AND instance <> $1
)
SELECT 1 + count(*) FROM {schema}.sidecars WHERE seen_at > now() - $2::interval AND instance <> $1
