-- question: Which sources and events make the usage, and where does it grow?
-- description: One row per meter and source, and per event of a source: the last 28 whole days, which are whole weeks, beside
--   the 28 days before. Tracked users are those that a day added to its month, identified or never
--   identified, so one user can count at several sources and in two months.
-- key: meter, source_id, event
-- column meter text: api_calls, mtu, or events.
-- column source_id text: The source.
-- column event text: Of events the event, or the kind of call if it has no name; else empty.
-- column source_name text: Its name; null if it is gone.
-- column enabled bool: Whether it is switched on.
-- column used bigint: Used in the last 28 whole days.
-- column share double: Part of what the meter counts, from 0 to 1.
-- column used_before bigint: Used in the 28 days before.
-- column change bigint: The difference.
-- column change_percent double: The difference in percent of what was used before.
-- column rank bigint: 1 for what uses most of the meter.
-- column growth_rank bigint: 1 for what grew most, in absolute figures.
-- figure sources_with_usage: count(DISTINCT source_id) FILTER (used > 0)
-- figure largest_share_api_calls: max(share) FILTER (meter = 'api_calls')
-- figure largest_share_mtu: max(share) FILTER (meter = 'mtu')

WITH days AS (
    SELECT
        'api_calls' AS meter,
        source_id,
        '' AS event,
        "timestamp" AS day,
        daily_api_calls AS used
    FROM usage_api_calls_sources_daily
    WHERE "timestamp" >= date_trunc('day', getvariable('now')) - INTERVAL 60 DAY
    UNION ALL
    SELECT 'mtu', source_id, '', "timestamp", daily_identified + daily_never_identified
    FROM usage_mtu_sources_daily
    WHERE "timestamp" >= date_trunc('day', getvariable('now')) - INTERVAL 60 DAY
    UNION ALL
    SELECT 'events', source_id, coalesce(nullif(event_name, ''), event_type), "time", "count"
    FROM events_volume
    WHERE "time" >= date_trunc('day', getvariable('now')) - INTERVAL 60 DAY
),
whole AS (
    SELECT *, max(day) OVER (PARTITION BY meter) AS as_of
    FROM days
    WHERE day < date_trunc('day', getvariable('now'))
),
sums AS (
    SELECT
        meter,
        source_id,
        event,
        CAST(coalesce(sum(used) FILTER (day > as_of - INTERVAL 28 DAY), 0) AS BIGINT) AS used,
        CAST(
            coalesce(sum(used) FILTER (day <= as_of - INTERVAL 28 DAY), 0) AS BIGINT
        ) AS used_before
    FROM whole
    WHERE day > as_of - INTERVAL 56 DAY
    GROUP BY meter, source_id, event
)
SELECT
    u.meter,
    u.source_id,
    u.event,
    coalesce(nullif(s.name, ''), s.slug) AS source_name,
    s.enabled,
    u.used,
    coalesce(u.used / nullif(sum(u.used) OVER (PARTITION BY u.meter), 0), 0) AS share,
    u.used_before,
    u.used - u.used_before AS change,
    100.0 * (u.used - u.used_before) / nullif(u.used_before, 0) AS change_percent,
    row_number() OVER (PARTITION BY u.meter ORDER BY u.used DESC, u.source_id, u.event) AS rank,
    row_number() OVER (
        PARTITION BY u.meter ORDER BY u.used - u.used_before DESC, u.source_id, u.event
    ) AS growth_rank
FROM sums AS u
LEFT JOIN sources AS s ON s.id = u.source_id
