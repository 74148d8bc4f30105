-- question: Which sources are switched on and serve nobody?
-- description: One row per enabled source that feeds no enabled destination and no enabled warehouse,
--   or that made no API calls in the last 30 days although others did.
-- key: source_id
-- column source_id text: The source.
-- column name text: Its name, or its slug if nobody named it.
-- column reason text: no destination, which means no warehouse either, no API calls, or both with a comma between.
-- column enabled_destinations bigint: Enabled destinations that it feeds.
-- column disabled_destinations bigint: Destinations that it would feed, were they enabled.
-- column enabled_warehouses bigint: Enabled warehouses that take it.
-- column api_calls_last_30_days bigint: Its API calls in the last 30 days.
-- column last_call timestamp: Last day on which it made any, as far back as usage was loaded.
-- column last_changed timestamp: Newest audit event on it; null if there is none.
-- column last_changed_by text personal: Who caused that: name, else address, else kind and id.
-- column labels text: Its labels, as key:value with commas between.
-- figure idle_sources: count(*)
-- figure without_destination: count(*) FILTER (reason LIKE '%no destination%')
-- figure without_api_calls: count(*) FILTER (reason LIKE '%no API calls%')
-- warn no_silent_sources (an enabled source has stopped sending for 30 days; repair it, or switch it
--    off): reason LIKE '%no API calls%'

WITH fed AS (
    SELECT
        source_id,
        count(*) FILTER (enabled) AS enabled_destinations,
        count(*) FILTER (NOT enabled) AS disabled_destinations
    FROM destinations
    WHERE deleted_at IS NULL
    GROUP BY source_id
),
taken AS (
    SELECT ws.id AS source_id, count(*) AS enabled_warehouses
    FROM warehouse_connected_sources AS ws
    JOIN warehouses AS w ON w.id = ws.warehouse_id AND w.enabled AND w.deleted_at IS NULL
    WHERE ws.deleted_at IS NULL
    GROUP BY ws.id
),
calls AS (
    SELECT
        source_id,
        max("timestamp") FILTER (daily_api_calls > 0) AS last_call,
        sum(daily_api_calls) FILTER (
            "timestamp" > getvariable('now') - INTERVAL 30 DAY
        ) AS api_calls
    FROM usage_api_calls_sources_daily
    GROUP BY source_id
),
touched AS (
    SELECT
        resource_id,
        max("timestamp") AS last_changed,
        max_by(actor_kind, ("timestamp", id)) FILTER (actor_id IS NOT NULL) AS actor_kind,
        max_by(actor_id, ("timestamp", id)) FILTER (actor_id IS NOT NULL) AS actor_id,
        max_by(coalesce(actor_email, ''), ("timestamp", id)) FILTER (
            actor_id IS NOT NULL
        ) AS actor_email
    FROM audit_events
    GROUP BY resource_id
),
judged AS (
    SELECT
        s.id,
        coalesce(nullif(s.name, ''), s.slug) AS name,
        s.labels,
        coalesce(f.enabled_destinations, 0) AS enabled_destinations,
        coalesce(f.disabled_destinations, 0) AS disabled_destinations,
        coalesce(t.enabled_warehouses, 0) AS enabled_warehouses,
        coalesce(c.api_calls, 0) AS api_calls,
        c.last_call,
        concat_ws(
            ', ',
            CASE
                WHEN coalesce(f.enabled_destinations, 0) + coalesce(t.enabled_warehouses, 0) = 0
                THEN 'no destination'
            END,
            CASE
                WHEN coalesce(c.api_calls, 0) = 0 AND (SELECT sum(api_calls) FROM calls) > 0
                THEN 'no API calls'
            END
        ) AS reason
    FROM sources AS s
    LEFT JOIN fed AS f ON f.source_id = s.id
    LEFT JOIN taken AS t ON t.source_id = s.id
    LEFT JOIN calls AS c ON c.source_id = s.id
    WHERE s.enabled AND s.deleted_at IS NULL
)
SELECT
    j.id AS source_id,
    j.name,
    j.reason,
    j.enabled_destinations,
    j.disabled_destinations,
    j.enabled_warehouses,
    j.api_calls AS api_calls_last_30_days,
    j.last_call,
    t.last_changed,
    coalesce(
        nullif(u.name, ''),
        u.email,
        nullif(t.actor_email, ''),
        t.actor_kind || ' ' || t.actor_id
    ) AS last_changed_by,
    array_to_string(
        list_sort(
            list_transform(
                coalesce(j.labels -> '$[*]', []),
                lambda l: concat(l ->> '$.key', ':', l ->> '$.value')
            )
        ),
        ', '
    ) AS labels
FROM judged AS j
LEFT JOIN touched AS t ON t.resource_id = j.id
LEFT JOIN users AS u ON t.actor_kind = 'user' AND u.id = t.actor_id
WHERE j.reason <> ''
