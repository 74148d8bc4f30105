-- question: Who may do what, by which way, and who has not been seen for long?
-- description: One row per person and permission that takes effect: a role on a resource, granted
--   directly or through a group. Members without a permission and invitations that are not accepted
--   yet, to the workspace or to a group, have one row each, without a role. Last seen is the newest event of the audit trail that
--   the person caused; who only looks causes none.
-- key: person_id, granted_through, role_id, resource_id, limited_to
-- column person_id text personal: The member, an id of users; of an invitation its address.
-- column name text personal: Name of the person.
-- column email text personal: E-mail address of the person.
-- column status text: MEMBER or INVITED.
-- column granted_through text: DIRECT, or the id of the group that gives it, or that the person is
--   invited to; empty without either.
-- column group_name text: Name of that group.
-- column role_id text: Role, an id of roles; empty without one.
-- column role text: Name of the role.
-- column resource_type text: Kind of the resource, such as SOURCE or WORKSPACE.
-- column resource_id text: Resource that the role is for; empty without one.
-- column resource_name text: Name of that resource, where it has one.
-- column limited_to text: Labels that limit it, as key:value with commas between; or empty.
-- column administrator bool: Whether it is the role Workspace Owner, which may do everything.
-- column last_seen timestamp: Newest audit event that the person caused; null if there is none.
-- column days_inactive bigint: Days since then; null if the audit trail has no event of theirs.
-- figure people: count(DISTINCT person_id) FILTER (status = 'MEMBER')
-- figure administrators: count(DISTINCT person_id) FILTER (administrator)
-- figure inactive_administrators: count(DISTINCT person_id) FILTER (
--    administrator
--    AND coalesce(days_inactive, getvariable('inactive_days')) >= getvariable('inactive_days'))
-- figure invited: count(DISTINCT person_id) FILTER (status = 'INVITED')
-- warn administrators_are_seen (an administrator has not done anything for ANALYTICS_INACTIVE_DAYS,
--    90 if not set; take the role away if the person does not need it): administrator
--    AND coalesce(days_inactive, getvariable('inactive_days')) >= getvariable('inactive_days')

WITH members AS (
    SELECT id, name, email, permissions FROM users WHERE deleted_at IS NULL
),
live_groups AS (
    SELECT id, name, permissions FROM groups WHERE deleted_at IS NULL
),
given AS (
    SELECT m.id AS person_id, 'DIRECT' AS granted_through, NULL AS group_name, p.permission
    FROM members AS m, unnest(m.permissions -> '$[*]') AS p(permission)
    UNION ALL
    SELECT m.id, g.id, g.name, p.permission
    FROM members AS m
    JOIN group_users AS gu ON gu.id = m.id AND gu.deleted_at IS NULL
    JOIN live_groups AS g ON g.id = gu.user_group_id,
        unnest(g.permissions -> '$[*]') AS p(permission)
),
resources AS (
    SELECT
        person_id,
        granted_through,
        group_name,
        permission ->> '$.roleId' AS role_id,
        permission ->> '$.roleName' AS role_name,
        coalesce(permission -> '$.labels[*]', []) AS labels,
        unnest(
            CASE
                WHEN json_array_length(permission, '$.resources') > 0
                THEN permission -> '$.resources[*]'
                ELSE [CAST('{}' AS JSON)]
            END
        ) AS resource
    FROM given
),
effective AS (
    SELECT
        person_id,
        granted_through,
        min(group_name) AS group_name,
        role_id,
        min(role_name) AS role_name,
        min(resource ->> '$.type') AS resource_type,
        coalesce(resource ->> '$.id', '') AS resource_id,
        array_to_string(
            list_sort(
                list_distinct(
                    list_transform(
                        list_concat(labels, coalesce(resource -> '$.labels[*]', [])),
                        lambda l: concat(l ->> '$.key', ':', l ->> '$.value')
                    )
                )
            ),
            ', '
        ) AS limited_to
    FROM resources
    GROUP BY ALL
),
named AS (
    SELECT id, coalesce(nullif(name, ''), slug) AS name FROM sources
    UNION ALL
    SELECT id, name FROM spaces
    UNION ALL
    SELECT id, display_name FROM functions
    UNION ALL
    SELECT id, name FROM workspace
),
seen AS (
    SELECT actor_id, max("timestamp") AS last_seen
    FROM audit_events
    WHERE actor_kind = 'user'
    GROUP BY actor_id
)
SELECT
    m.id AS person_id,
    m.name,
    m.email,
    'MEMBER' AS status,
    coalesce(e.granted_through, '') AS granted_through,
    e.group_name,
    coalesce(e.role_id, '') AS role_id,
    coalesce(r.name, e.role_name) AS role,
    e.resource_type,
    coalesce(e.resource_id, '') AS resource_id,
    n.name AS resource_name,
    coalesce(e.limited_to, '') AS limited_to,
    coalesce(coalesce(r.name, e.role_name) = 'Workspace Owner', false) AS administrator,
    s.last_seen,
    date_diff('day', s.last_seen, getvariable('now')) AS days_inactive
FROM members AS m
LEFT JOIN effective AS e ON e.person_id = m.id
LEFT JOIN roles AS r ON r.id = e.role_id
LEFT JOIN named AS n ON n.id = e.resource_id
LEFT JOIN seen AS s ON s.actor_id = m.id
UNION ALL
SELECT
    email, NULL, email, 'INVITED', '', NULL, '', NULL, NULL, '', NULL, '', false, NULL, NULL
FROM invites
WHERE deleted_at IS NULL
UNION ALL
SELECT
    gi.email, NULL, gi.email, 'INVITED', gi.user_group_id, g.name, '', NULL, NULL, '', NULL, '',
    false, NULL, NULL
FROM group_invites AS gi
JOIN live_groups AS g ON g.id = gi.user_group_id
WHERE gi.deleted_at IS NULL
