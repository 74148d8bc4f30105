-- question: Where does data come in that no tracking plan governs?
-- description: One row per gap: an enabled source without a tracking plan, a plan without a source, a
--   source whose settings let events through that its plan does not name, and an event of the last
--   30 days that no rule of its source's plan names. Where no plan has a source there is no gap.
-- key: gap, source_id, tracking_plan_id, event
-- column gap text: source without plan, plan without source, unplanned events let through, or
--   unplanned event.
-- column source_id text: The source; empty for a plan without one.
-- column source_name text: Its name, or its slug if nobody named it.
-- column tracking_plan_id text: The tracking plan; empty for a source without one.
-- column tracking_plan text: Its name.
-- column event text: The event that no rule names; else empty.
-- column events_last_30_days bigint: How often it came in; null of other gaps.
-- figure sources_without_plan: count(*) FILTER (gap = 'source without plan')
-- figure plans_without_source: count(*) FILTER (gap = 'plan without source')
-- figure sources_open_to_unplanned: count(*) FILTER (gap = 'unplanned events let through')
-- figure unplanned_events: count(*) FILTER (gap = 'unplanned event')

WITH live_sources AS (
    SELECT id, coalesce(nullif(name, ''), slug) AS name, enabled
    FROM sources
    WHERE deleted_at IS NULL
),
live_plans AS (
    SELECT id, name FROM tracking_plans WHERE deleted_at IS NULL AND type = 'LIVE'
),
planned AS (
    SELECT s.id AS source_id, s.name AS source_name, s.enabled, p.id AS plan_id, p.name AS plan
    FROM tracking_plan_sources AS ps
    JOIN live_sources AS s ON s.id = ps.id
    JOIN live_plans AS p ON p.id = ps.tracking_plan_id
    WHERE ps.deleted_at IS NULL
),
named AS (
    SELECT DISTINCT tracking_plan_id AS plan_id, "key" AS event
    FROM tracking_plan_rules
    WHERE type = 'TRACK' AND deprecated_at IS NULL AND deleted_at IS NULL
),
events AS (
    SELECT source_id, event_name AS event, CAST(sum("count") AS BIGINT) AS events
    FROM events_volume
    WHERE upper(event_type) = 'TRACK' AND "time" > getvariable('now') - INTERVAL 30 DAY
    GROUP BY source_id, event_name
    HAVING sum("count") > 0
)
SELECT
    'source without plan' AS gap,
    s.id AS source_id,
    s.name AS source_name,
    '' AS tracking_plan_id,
    NULL AS tracking_plan,
    '' AS event,
    NULL AS events_last_30_days
FROM live_sources AS s
WHERE s.enabled
    AND s.id NOT IN (SELECT source_id FROM planned)
    AND (SELECT count(*) FROM planned) > 0
UNION ALL
SELECT 'plan without source', '', NULL, p.id, p.name, '', NULL
FROM live_plans AS p
WHERE p.id NOT IN (SELECT plan_id FROM planned) AND (SELECT count(*) FROM planned) > 0
UNION ALL
SELECT
    'unplanned events let through', p.source_id, p.source_name, p.plan_id, p.plan, '', NULL
FROM planned AS p
JOIN source_schema_settings AS ss ON ss.source_id = p.source_id AND ss.deleted_at IS NULL
WHERE p.enabled AND CAST(ss.track ->> '$.allowUnplannedEvents' AS BOOLEAN)
UNION ALL
SELECT 'unplanned event', p.source_id, p.source_name, p.plan_id, p.plan, e.event, e.events
FROM planned AS p
JOIN events AS e ON e.source_id = p.source_id
LEFT JOIN named AS n ON n.plan_id = p.plan_id AND n.event = e.event
WHERE n.event IS NULL
