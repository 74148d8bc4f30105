-- question: Who did what, on which thing, and when?
-- description: One row per event of the audit trail, with people, tokens and things under the names
--   they have now, also of those that have gone since. And one for each row of a list that a load
--   found to have appeared, changed, vanished or come back; history tells the values.
-- key: id
-- column id text personal: Event, an id of audit_events; else a hash of what a load found, and when.
-- column told_by text: audit trail, or load.
-- column moment timestamp: When it happened, or when a load found it (UTC).
-- column who text personal: Name of the person, else the address; of a token its kind and id.
-- column who_kind text: Kind of actor, such as user or public-api-token.
-- column who_id text personal: Identifier of the actor; of a person an id of users.
-- column has_left bool: Whether the person is no member any more, as far as is known.
-- column what text: What was done, such as Source Created; or what a load found: appeared, changed,
--   vanished or returned.
-- column thing_kind text: Kind of the thing it was done to; of what a load found, the table.
-- column thing_id text personal: Identifier of that thing; of several columns as a JSON list.
-- column thing_name text personal: Its name now, else the one that the event gives.
-- column thing_has_gone bool: Whether the thing was deleted since; null if it is of no list here.
-- column changed_columns text: The columns whose values a load found changed, separated by commas.
-- figure events: count(*) FILTER (told_by = 'audit trail')
-- figure events_last_7_days: count(*) FILTER (
--    told_by = 'audit trail' AND moment > getvariable('now') - INTERVAL 7 DAY)
-- figure found_by_loads: count(*) FILTER (told_by = 'load')
-- figure people_last_7_days: count(DISTINCT who_id) FILTER (
--    who_kind = 'user' AND moment > getvariable('now') - INTERVAL 7 DAY)

WITH things AS (
    SELECT id, coalesce(nullif(name, ''), slug) AS name, deleted_at FROM sources
    UNION ALL
    SELECT id, nullif(name, ''), deleted_at FROM destinations
    UNION ALL
    SELECT id, NULL, deleted_at FROM warehouses
    UNION ALL
    SELECT id, nullif(name, ''), deleted_at FROM reverse_etl_models
    UNION ALL
    SELECT id, nullif(name, ''), deleted_at FROM transformations
    UNION ALL
    SELECT id, nullif(name, ''), deleted_at FROM spaces
    UNION ALL
    SELECT id, nullif(name, ''), deleted_at FROM tracking_plans
    UNION ALL
    SELECT id, nullif(display_name, ''), deleted_at FROM functions
    UNION ALL
    SELECT id, coalesce(nullif(name, ''), email), deleted_at FROM users
    UNION ALL
    SELECT id, nullif(name, ''), deleted_at FROM groups
    UNION ALL
    SELECT id, nullif(name, ''), deleted_at FROM roles
),
known AS (
    SELECT id, min(name) AS name, bool_and(deleted_at IS NOT NULL) AS has_gone
    FROM things
    GROUP BY id
),
-- plain files drop what is gone, so that it seems new when it comes back
found AS (
    SELECT
        *,
        lag(what) OVER (PARTITION BY asset, "key", column_name ORDER BY moment) AS what_before
    FROM record_changes
),
loads AS (
    SELECT
        asset,
        "key",
        moment,
        CASE WHEN what = 'appeared' AND what_before = 'vanished' THEN 'returned' ELSE what END
            AS what,
        string_agg(nullif(column_name, ''), ', ' ORDER BY column_name) AS changed_columns
    FROM found
    GROUP BY ALL
)
SELECT
    e.id,
    'audit trail' AS told_by,
    e."timestamp" AS moment,
    coalesce(nullif(u.name, ''), u.email, e.actor_email, e.actor_kind || ' ' || e.actor_id) AS who,
    e.actor_kind AS who_kind,
    e.actor_id AS who_id,
    e.actor_kind = 'user' AND (u.id IS NULL OR u.deleted_at IS NOT NULL) AS has_left,
    e.type AS what,
    e.resource_type AS thing_kind,
    e.resource_id AS thing_id,
    coalesce(k.name, nullif(e.resource_name, '')) AS thing_name,
    k.has_gone AS thing_has_gone,
    NULL AS changed_columns
FROM audit_events AS e
LEFT JOIN users AS u ON e.actor_kind = 'user' AND u.id = e.actor_id
LEFT JOIN known AS k ON k.id = e.resource_id
UNION ALL
SELECT
    md5(concat_ws(' ', l.asset, l."key", l.what, l.moment)) AS id,
    'load' AS told_by,
    l.moment,
    NULL AS who,
    NULL AS who_kind,
    NULL AS who_id,
    NULL AS has_left,
    l.what,
    l.asset AS thing_kind,
    l."key" AS thing_id,
    k.name AS thing_name,
    k.has_gone AS thing_has_gone,
    l.changed_columns
FROM loads AS l
LEFT JOIN known AS k ON k.id = l."key"
