-- question: Which integrations in use does the catalogue no longer stand behind, or not yet?
-- description: One row per source or destination whose kind is deprecated, unavailable or in beta by
--   the catalogue. Kinds of warehouses have no such state.
-- key: kind, id
-- column kind text: SOURCE or DESTINATION.
-- column id text: Identifier of the source or destination.
-- column name text: Its name; of one without a name the slug, or the name of its integration.
-- column enabled bool: Whether it is switched on.
-- column source_id text: The source itself, or the one that feeds the destination.
-- column source_name text: Name of that source.
-- column integration_id text: The integration, an id of the catalogue.
-- column integration text: Name of the integration.
-- column status text: What the catalogue says of it, such as DEPRECATED or PUBLIC_BETA.
-- column risk text: deprecated, unavailable or beta.
-- column api_calls_last_30_days bigint: API calls of the source in the last 30 days.
-- figure in_use: count(*) FILTER (enabled)
-- figure deprecated: count(*) FILTER (enabled AND risk = 'deprecated')
-- figure unavailable: count(*) FILTER (enabled AND risk = 'unavailable')
-- figure beta: count(*) FILTER (enabled AND risk = 'beta')
-- warn nothing_deprecated_in_use (an enabled source or destination is of a kind that the catalogue
--    has given up; move it to another before it stops): enabled AND risk = 'deprecated'

WITH live_sources AS (
    SELECT id, coalesce(nullif(name, ''), slug) AS name, enabled, metadata ->> '$.id' AS kind_id
    FROM sources
    WHERE deleted_at IS NULL
),
used AS (
    SELECT
        'SOURCE' AS kind,
        s.id,
        s.name,
        s.enabled,
        s.id AS source_id,
        s.name AS source_name,
        c.id AS integration_id,
        c.name AS integration,
        c.status
    FROM live_sources AS s
    JOIN catalog_sources AS c ON c.id = s.kind_id
    UNION ALL
    SELECT
        'DESTINATION',
        d.id,
        coalesce(nullif(d.name, ''), c.name),
        d.enabled,
        d.source_id,
        s.name,
        c.id,
        c.name,
        c.status
    FROM destinations AS d
    JOIN catalog_destinations AS c ON c.id = d.metadata ->> '$.id'
    LEFT JOIN live_sources AS s ON s.id = d.source_id
    WHERE d.deleted_at IS NULL
),
calls AS (
    SELECT source_id, CAST(sum(daily_api_calls) AS BIGINT) AS api_calls
    FROM usage_api_calls_sources_daily
    WHERE "timestamp" > getvariable('now') - INTERVAL 30 DAY
    GROUP BY source_id
)
SELECT
    u.kind,
    u.id,
    u.name,
    u.enabled,
    u.source_id,
    u.source_name,
    u.integration_id,
    u.integration,
    u.status,
    CASE
        WHEN u.status = 'DEPRECATED' THEN 'deprecated'
        WHEN u.status = 'UNAVAILABLE' THEN 'unavailable'
        ELSE 'beta'
    END AS risk,
    coalesce(c.api_calls, 0) AS api_calls_last_30_days
FROM used AS u
LEFT JOIN calls AS c ON c.source_id = u.source_id
WHERE u.status IN ('DEPRECATED', 'UNAVAILABLE', 'PUBLIC_BETA', 'PRIVATE_BETA')
