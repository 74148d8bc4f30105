-- question: Which source feeds which destination or warehouse, and under which rules?
-- description: One row per source and destination or warehouse that it feeds directly. What runs
--   through a space or a reverse ETL model is not here.
-- key: source_id, target_kind, target_id
-- column source_id text: The source.
-- column source_name text: Its name, or its slug if nobody named it.
-- column target_kind text: DESTINATION or WAREHOUSE.
-- column target_id text: The destination or warehouse.
-- column target_name text: Its name; of one without a name that of its integration.
-- column source_enabled bool: Whether the source is switched on.
-- column target_enabled bool: Whether the destination or warehouse is switched on.
-- column flows bool: Whether both are.
-- column integration text: Name of the integration in the catalogue.
-- column deprecated bool: Whether the catalogue calls it deprecated; null of warehouses.
-- column filters bigint: Enabled filters of the destination.
-- column subscriptions bigint: Enabled subscriptions of the destination; none if it has no actions.
-- column tracking_plan_id text: Tracking plan that the source is held to.
-- column tracking_plan text: Name of that plan.
-- figure routes: count(*)
-- figure flowing: count(*) FILTER (flows)
-- figure sources_feeding: count(DISTINCT source_id) FILTER (flows)

WITH live_sources AS (
    SELECT id, coalesce(nullif(name, ''), slug) AS name, enabled
    FROM sources
    WHERE deleted_at IS NULL
),
filtered AS (
    SELECT destination_id, count(*) AS filters
    FROM destination_filters
    WHERE enabled AND deleted_at IS NULL
    GROUP BY destination_id
),
subscribed AS (
    SELECT destination_id, count(*) AS subscriptions
    FROM destination_subscriptions
    WHERE enabled AND deleted_at IS NULL
    GROUP BY destination_id
),
planned AS (
    SELECT ps.id AS source_id, min(ps.tracking_plan_id) AS plan_id
    FROM tracking_plan_sources AS ps
    WHERE ps.deleted_at IS NULL
    GROUP BY ps.id
),
targets AS (
    SELECT
        d.source_id,
        'DESTINATION' AS target_kind,
        d.id AS target_id,
        coalesce(nullif(d.name, ''), c.name) AS target_name,
        d.enabled,
        c.name AS integration,
        c.status = 'DEPRECATED' AS deprecated,
        coalesce(f.filters, 0) AS filters,
        coalesce(s.subscriptions, 0) AS subscriptions
    FROM destinations AS d
    LEFT JOIN catalog_destinations AS c ON c.id = d.metadata ->> '$.id'
    LEFT JOIN filtered AS f ON f.destination_id = d.id
    LEFT JOIN subscribed AS s ON s.destination_id = d.id
    WHERE d.deleted_at IS NULL
    UNION ALL
    SELECT ws.id, 'WAREHOUSE', w.id, c.name, w.enabled, c.name, NULL, 0, 0
    FROM warehouse_connected_sources AS ws
    JOIN warehouses AS w ON w.id = ws.warehouse_id AND w.deleted_at IS NULL
    LEFT JOIN catalog_warehouses AS c ON c.id = w.metadata ->> '$.id'
    WHERE ws.deleted_at IS NULL
)
SELECT
    s.id AS source_id,
    s.name AS source_name,
    t.target_kind,
    t.target_id,
    t.target_name,
    s.enabled AS source_enabled,
    t.enabled AS target_enabled,
    s.enabled AND t.enabled AS flows,
    t.integration,
    t.deprecated,
    t.filters,
    t.subscriptions,
    p.plan_id AS tracking_plan_id,
    tp.name AS tracking_plan
FROM targets AS t
JOIN live_sources AS s ON s.id = t.source_id
LEFT JOIN planned AS p ON p.source_id = s.id
LEFT JOIN tracking_plans AS tp ON tp.id = p.plan_id
