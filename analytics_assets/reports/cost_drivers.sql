-- question: Which sources and events make the usage, and where does it grow?
-- description: One row per meter and source, and per event of a source: the last 28 whole days, which
--   are whole weeks, beside the 28 days before. Tracked users are those that a day added to its month, identified or never
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
-- column as_of timestamp: The last whole day that was loaded of the meter.
-- column last_used timestamp: The last day with any use; null if there is none in the 56 days.
-- column last_day bigint: Used on the last whole day.
-- column usual_day double: Average of the same weekday in the seven weeks before.
-- figure sources_with_usage: count(DISTINCT source_id) FILTER (used > 0)
-- figure largest_share_api_calls: max(share) FILTER (meter = 'api_calls')
-- figure largest_share_mtu: max(share) FILTER (meter = 'mtu')
-- warn no_source_fell_silent (an enabled source that made API calls has made none for
--    ANALYTICS_SILENT_DAYS, 7 if not set; repair it, or switch it off): meter = 'api_calls'
--    AND enabled AND last_used <= as_of - to_days(getvariable('silent_days'))
-- warn no_spike (a source made more API calls on the last whole day than ANALYTICS_SPIKE_FACTOR, 3 if
--    not set, times the usual of that weekday; see in the rows of its events what it sent):
--    meter = 'api_calls' AND last_day > getvariable('spike_factor') * usual_day

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
        ) AS used_before,
        min(as_of) AS as_of,
        max(day) FILTER (used > 0) AS last_used,
        CAST(coalesce(sum(used) FILTER (day = as_of), 0) AS BIGINT) AS last_day,
        avg(used) FILTER (day < as_of AND isodow(day) = isodow(as_of)) AS usual_day
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
    ) AS growth_rank,
    u.as_of,
    u.last_used,
    u.last_day,
    u.usual_day
FROM sums AS u
LEFT JOIN sources AS s ON s.id = u.source_id
