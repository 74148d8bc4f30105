-- question: What was a configuration before, what is it now, and who may have changed it?
-- description: One row per change that a load has found in a list, by comparison with the load before:
--   a row that appeared, vanished or came back, or one value of a row that changed. What was there at
--   the first load is no change. The event is the newest one of the audit trail on that thing
--   between the two loads, give or take a minute, as clocks of machines differ.
-- key: asset, key, column_name, moment
-- column asset text: The table that changed.
-- column key text personal: Key of the row; of several columns as a JSON list.
-- column name text personal: Name of the thing, where it has one.
-- column what text: appeared, changed, vanished or returned.
-- column column_name text: The column that changed; else empty.
-- column before text personal redacted: Its value before, as text.
-- column after text personal redacted: Its value after.
-- column moment timestamp: When a load found it (UTC).
-- column since timestamp: When the load before began.
-- column event_id text: The event that may explain it, an id of audit_events; null without one.
-- column event text: What that event was, such as Source Modified.
-- column event_moment timestamp: When it happened (UTC).
-- column who text personal: Who caused it: name, else address, else kind and id.
-- column events bigint: How many events there were on the thing between the two loads.
-- figure changes: count(*)
-- figure changes_last_7_days: count(*) FILTER (moment > getvariable('now') - INTERVAL 7 DAY)
-- figure explained: count(*) FILTER (event_id IS NOT NULL)

WITH things AS (
    SELECT id, coalesce(nullif(name, ''), slug) AS name FROM sources
    UNION ALL
    SELECT id, nullif(name, '') FROM destinations
    UNION ALL
    SELECT id, nullif(name, '') FROM tracking_plans
    UNION ALL
    SELECT id, nullif(display_name, '') FROM functions
    UNION ALL
    SELECT id, coalesce(nullif(name, ''), email) FROM users
    UNION ALL
    SELECT id, nullif(name, '') FROM groups
    UNION ALL
    SELECT id, nullif(name, '') FROM roles
),
names AS (
    SELECT id, min(name) AS name FROM things GROUP BY id
),
told AS (
    SELECT
        *,
        -- plain files drop what is gone, so that it seems new when it comes back
        lag(what) OVER (PARTITION BY asset, "key", column_name ORDER BY moment) AS what_before,
        CASE
            WHEN starts_with("key", '[') AND json_valid("key")
            THEN CAST("key" AS JSON) ->> '$[*]'
            ELSE ["key"]
        END AS parts
    FROM record_changes
),
explained AS (
    SELECT
        t.asset,
        t."key",
        t.column_name,
        t.moment,
        count(DISTINCT e.id) AS events,
        max_by(e.id, (e."timestamp", e.id)) AS event_id
    FROM told AS t, unnest(t.parts) AS p(part)
    JOIN audit_events AS e ON e.resource_id = p.part
        AND e."timestamp" > t.since - INTERVAL 1 MINUTE
        AND e."timestamp" <= t.moment + INTERVAL 1 MINUTE
    GROUP BY t.asset, t."key", t.column_name, t.moment
)
SELECT
    t.asset,
    t."key",
    n.name,
    CASE WHEN t.what = 'appeared' AND t.what_before = 'vanished' THEN 'returned' ELSE t.what END
        AS what,
    t.column_name,
    t.before,
    t.after,
    t.moment,
    t.since,
    x.event_id,
    e.type AS event,
    e."timestamp" AS event_moment,
    coalesce(nullif(u.name, ''), u.email, e.actor_email, e.actor_kind || ' ' || e.actor_id) AS who,
    coalesce(x.events, 0) AS events
FROM told AS t
LEFT JOIN names AS n ON n.id = t."key"
LEFT JOIN explained AS x ON x.asset = t.asset AND x."key" = t."key"
    AND x.column_name = t.column_name AND x.moment = t.moment
LEFT JOIN audit_events AS e ON e.id = x.event_id
LEFT JOIN users AS u ON e.actor_kind = 'user' AND u.id = e.actor_id
