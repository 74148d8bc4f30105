-- question: Which credential stands in more than one place, so that a leak there opens the others?
-- description: One row per place at which a credential stands that stands elsewhere, too. They are
--   known by their fingerprints only; one that is short enough to be guessed has none, and is not
--   found. With ANALYTICS_REDACT_SECRETS=false there are no fingerprints, and no rows.
-- key: fingerprint, kind, id, field
-- column fingerprint text redacted: What is stored in place of the credential.
-- column places bigint: At how many places it stands.
-- column kind text: Table that holds it, such as sources.
-- column id text: Row of that table.
-- column name text: Name of the source, destination, transformation or model.
-- column field text: Column of that table.
-- column enabled bool: Whether it is switched on.
-- figure shared_credentials: count(DISTINCT fingerprint)
-- figure places: count(*)
-- warn no_shared_credentials (a credential stands in several places; give each its own, so that one
--    can be revoked without the others): true

WITH texts AS (
    SELECT
        'sources' AS kind,
        id,
        coalesce(nullif(name, ''), slug) AS name,
        'settings' AS field,
        enabled,
        CAST(settings AS VARCHAR) AS text
    FROM sources
    WHERE deleted_at IS NULL
    UNION ALL
    SELECT
        'sources',
        id,
        coalesce(nullif(name, ''), slug),
        'write_keys',
        enabled,
        CAST(write_keys AS VARCHAR)
    FROM sources
    WHERE deleted_at IS NULL
    UNION ALL
    SELECT 'destinations', id, nullif(name, ''), 'settings', enabled, CAST(settings AS VARCHAR)
    FROM destinations
    WHERE deleted_at IS NULL
    UNION ALL
    SELECT 'warehouses', id, NULL, 'settings', enabled, CAST(settings AS VARCHAR)
    FROM warehouses
    WHERE deleted_at IS NULL
    UNION ALL
    SELECT
        'transformations',
        id,
        name,
        'hash_properties_configuration',
        enabled,
        CAST(hash_properties_configuration AS VARCHAR)
    FROM transformations
    WHERE deleted_at IS NULL
    UNION ALL
    SELECT 'reverse_etl_models', id, name, 'query', enabled, query
    FROM reverse_etl_models
    WHERE deleted_at IS NULL
),
found AS (
    SELECT DISTINCT
        unnest(regexp_extract_all(text, '(sha256|hmac):[0-9a-f]{12}')) AS fingerprint,
        kind,
        id,
        name,
        field,
        enabled
    FROM texts
)
SELECT
    fingerprint,
    count(*) OVER (PARTITION BY fingerprint) AS places,
    kind,
    id,
    name,
    field,
    enabled
FROM found
QUALIFY count(*) OVER (PARTITION BY fingerprint) > 1
