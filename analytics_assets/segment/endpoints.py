"""The whole API on one page: one frozen row per resource.

A row says where a list is, what identifies its records, which columns they fill and what an analyst
should know about them. Everything else is derived from it: requests, tables, assets and checks. To
add a resource, add a row to :data:`ENDPOINTS`.

The facts come from the reference of the Segment Public API (https://docs.segmentapis.com) and its
official Python SDK, version 73.2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, get_args

from analytics_assets.segment.model import (
    DAY,
    Column,
    Endpoint,
    Group,
    Months,
    Parent,
    Part,
    Reference,
    Values,
    Window,
)

_DOCS = "https://docs.segmentapis.com/tag"

# Columns that several record types share.

_WORKSPACE_ID = Column("workspaceId", "text", "Workspace the record belongs to.")
_SOURCE_ID = Column("sourceId", "text", "Source concerned; joins to sources.id.")
_TO_SOURCE = Reference("sourceId", "sources")
_SPACE_ID = Column("spaceId", "text", "Space concerned; joins to spaces.id.")

_CATALOG_ENTRY = (
    Column("id", "text", "Catalogue identifier of the integration; the same in every workspace."),
    Column("name", "text", "Name shown in the catalogue."),
    Column("slug", "text", "Short name as used in URLs."),
    Column("description", "text", "What the integration does, in English; may hold Markdown."),
    Column(
        "logos", "json", "Addresses of logo images: `default`, `mark` and `alt`.", redact="public"
    ),
    Column(
        "options",
        "json",
        "Settings that can be made: name, type, default, whether required.",
        redact="public",
    ),
)
_CATALOG_LISTING = (
    Column("status", "text", "Release stage, such as PUBLIC, PUBLIC_BETA or DEPRECATED."),
    Column("categories", "json", "Categories the catalogue files it under.", redact="public"),
    Column("partnerOwned", "bool", "True if a partner maintains it, not Segment."),
)

_GROUP_MEMBERS = (
    "Group Membership",
    "Subjects Added to Group",
    "User Added To User Group",
    "User Removed From User Group",
    "User Group Created",
    "User Group Deleted",
)
"""How the types of events on the members of a group begin (IAMGroupsApi.md of the SDK)."""
_GROUP_INVITED = (
    "Group Membership",
    "Subjects Added to Group",
    "User Group Created",
    "User Group Deleted",
)
_PLAN_OF_SOURCE = (
    "Source Modified",
    "Source Connected to Tracking Plan",
    "Source Disconnected From Tracking Plan",
)
"""How the types of events on the tracking plan of a source begin (TrackingPlansApi.md, the app)."""

_COMPUTED = (
    Column("id", "text", "Identifier of it."),
    Column("name", "text", "Name shown in the app."),
    Column("description", "text", "What it is for, as its authors put it."),
    Column("key", "text", "Name under which it is sent to destinations."),
    Column("enabled", "bool", "False if it is not computed."),
    Column(
        "definition",
        "json",
        "Its query in Segment's language, with names of traits and values; may be null.",
        redact="shape",
    ),
    Column("status", "text", "State, such as Live, Computing or Failed; new words can appear."),
    Column("createdBy", "text", "Author; an id of users, of a member who may have left."),
    Column("updatedBy", "text", "Last editor; an id of users, of a member who may have left."),
    Column("createdAt", "timestamp", "When it was made (UTC)."),
    Column("updatedAt", "timestamp", "Last change (UTC)."),
)
"""Columns that audiences and computed traits share."""

_DAY = Column(DAY, "timestamp", "Day up to which the counters count.")
_API_CALLS = Column("apiCalls", "bigint", "API calls from the first of the month to this day.")
_MTU = (
    Column("periodStart", "timestamp", "Beginning of the billing period (UTC)."),
    Column("periodEnd", "timestamp", "End of the billing period (UTC)."),
    Column("anonymous", "bigint", "Month to date: users seen with an anonymous id."),
    Column("anonymousIdentified", "bigint", "Month to date: anonymous users identified later on."),
    Column("identified", "bigint", "Month to date: users seen with a user id."),
    Column("neverIdentified", "bigint", "Month to date: users who stayed anonymous throughout."),
)


# The rows, in the order in which they are presented.

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    # inventory: what is connected
    Endpoint(
        name="workspace",
        group="inventory",
        path="/",
        data_selector="data.workspace",
        primary_key=("id",),
        description="One row: the workspace that the token belongs to.",
        columns=(
            Column("id", "text", "Identifier of the workspace; the workspace_id of its records."),
            Column("slug", "text", "Short name of the workspace as used in the app's URLs."),
            Column("name", "text", "Name of the workspace."),
        ),
        docs=f"{_DOCS}/Workspaces",
        paginated=False,
        single=True,
    ),
    Endpoint(
        name="warehouses",
        group="inventory",
        path="/warehouses",
        data_selector="data.warehouses",
        primary_key=("id",),
        description=(
            "One row per warehouse the workspace loads its events into. The display name, if one"
            " was given, is in `settings`."
        ),
        columns=(
            Column("id", "text", "Identifier of this warehouse connection."),
            _WORKSPACE_ID,
            Column("enabled", "bool", "False if loading into the warehouse is switched off."),
            Column(
                "metadata",
                "json",
                "Copy of this kind's entry in catalog_warehouses.",
                redact="public",
            ),
            Column(
                "settings",
                "json",
                "Connection settings; the keys depend on the kind.",
                redact="shape_and_key",
            ),
        ),
        docs=f"{_DOCS}/Warehouses",
        references=(Reference("metadata.id", "catalog_warehouses"),),
        event_types=("Storage Destination", "Warehouse"),
    ),
    Endpoint(
        name="sources",
        group="inventory",
        path="/sources",
        data_selector="data.sources",
        primary_key=("id",),
        description=(
            "One row per source, the place where data enters the workspace. The write keys are"
            " live credentials and are stored as fingerprints only."
        ),
        columns=(
            Column("id", "text", "Identifier of the source."),
            Column("slug", "text", "Short name of the source as used in the app's URLs."),
            Column("name", "text", "Name given by the workspace; empty if nobody named it."),
            _WORKSPACE_ID,
            Column("enabled", "bool", "False if the source turns data away."),
            Column(
                "metadata", "json", "Copy of this kind's entry in catalog_sources.", redact="public"
            ),
            Column(
                "settings",
                "json",
                "Settings of the source; the keys depend on its kind.",
                redact="shape_and_key",
            ),
            Column("labels", "json", "Labels on the source, each with key and value; see labels."),
            Column(
                "writeKeys",
                "json",
                "Ingestion keys; an empty list if the token may not see them.",
                redact="secret",
            ),
        ),
        docs=f"{_DOCS}/Sources",
        references=(Reference("metadata.id", "catalog_sources"),),
        event_types=(
            "Source",
            *_PLAN_OF_SOURCE,
            "Engage Warehouse Source",
            "Source Connected To Space",
            "Source Disconnected From Space",
        ),
    ),
    Endpoint(
        name="destinations",
        group="inventory",
        path="/destinations",
        data_selector="data.destinations",
        primary_key=("id",),
        description=(
            "One row per destination connected to a source; the same tool fed by two sources makes"
            " two rows. For facts about the tool itself, join `metadata.id` to"
            " catalog_destinations."
        ),
        columns=(
            Column("id", "text", "Identifier of this connection, not of the tool behind it."),
            Column("name", "text", "Name given by the workspace; empty if nobody named it."),
            Column("enabled", "bool", "False if nothing is sent to the destination."),
            _SOURCE_ID,
            Column(
                "metadata",
                "json",
                "Copy of the tool's entry in catalog_destinations, contact people included.",
                personal=True,
                redact="public",
            ),
            Column(
                "settings",
                "json",
                "Settings of the connection; the keys depend on the tool.",
                redact="shape_and_key",
            ),
        ),
        docs=f"{_DOCS}/Destinations",
        references=(_TO_SOURCE, Reference("metadata.id", "catalog_destinations")),
        event_types=("Integration", "Destination"),
    ),
    Endpoint(
        name="reverse_etl_models",
        group="inventory",
        path="/reverse-etl-models",
        data_selector="data.models",
        primary_key=("id",),
        description=(
            "One row per reverse ETL model: a query on a warehouse whose rows are sent onwards."
            " The query is stored as it is, but for secrets in it."
        ),
        columns=(
            Column("id", "text", "Identifier of the model."),
            _SOURCE_ID,
            Column("name", "text", "Name of the model."),
            Column("description", "text", "What the model is for, as its authors put it."),
            Column("enabled", "bool", "False if the model is not synced."),
            Column("query", "text", "SQL of the model, without secrets in it.", redact="shape"),
            Column("queryIdentifierColumn", "text", "Result column that tells rows apart."),
        ),
        docs=f"{_DOCS}/Reverse-ETL",
        stage="v1alpha",
        feature="Reverse ETL",
        references=(_TO_SOURCE,),
        event_types=("Model", "Reverse ETL Model"),
    ),
    Endpoint(
        name="transformations",
        group="inventory",
        path="/transformations",
        data_selector="data.transformations",
        primary_key=("id",),
        description=(
            "One row per transformation: a rule that changes or drops the events of a source, for"
            " all of its destinations or for one. `if` and `drop` are reserved words in SQL: quote"
            " them."
        ),
        columns=(
            Column("id", "text", "Identifier of the transformation."),
            Column("name", "text", "Name of the transformation."),
            _WORKSPACE_ID,
            _SOURCE_ID,
            Column(
                "destinationMetadataId",
                "text",
                "Only kind of destination the rule acts on; an id of catalog_destinations.",
            ),
            Column("destinationId", "text", "Destination of the rule; undocumented, may be null."),
            Column("enabled", "bool", "False if the rule is switched off."),
            Column("if", "text", "Which events the rule takes, as an FQL expression."),
            Column("drop", "bool", "True if the events it takes are thrown away."),
            Column("newEventName", "text", "Name that replaces the event's own."),
            Column("propertyRenames", "json", "Properties renamed: pairs of old and new name."),
            Column(
                "propertyValueTransformations",
                "json",
                "Fixed values written into properties.",
                redact="shape",
            ),
            Column(
                "fqlDefinedProperties",
                "json",
                "Properties added from an FQL expression.",
                redact="shape",
            ),
            Column("propertyDrops", "json", "Properties removed; undocumented, may be null."),
            Column("allowProperties", "json", "Properties let through; all others are removed."),
            Column(
                "hashPropertiesConfiguration",
                "json",
                "Properties that are hashed, and with which algorithm and encoding.",
                redact="shape_and_key",
            ),
        ),
        docs=f"{_DOCS}/Transformations",
        feature="Protocols",
        references=(_TO_SOURCE,),
        event_types=("Transformation",),
    ),
    Endpoint(
        name="spaces",
        group="inventory",
        path="/spaces",
        data_selector="data.spaces",
        primary_key=("id",),
        description="One row per space, a separate set of customer profiles within the workspace.",
        columns=(
            Column("id", "text", "Identifier of the space."),
            Column("slug", "text", "Short name of the space as used in the app's URLs."),
            Column("name", "text", "Name of the space."),
        ),
        docs=f"{_DOCS}/Spaces",
        stage="v1alpha",
        feature="Spaces",
        event_types=("Space", "Source Connected To Space", "Source Disconnected From Space"),
    ),
    Endpoint(
        name="tracking_plans",
        group="inventory",
        path="/tracking-plans",
        data_selector="data.trackingPlans",
        primary_key=("id",),
        description=(
            "One row per tracking plan: which events and properties sources are meant to send. The"
            " rules themselves are in tracking_plan_rules."
        ),
        columns=(
            Column("id", "text", "Identifier of the tracking plan."),
            Column("name", "text", "Name of the plan."),
            Column("slug", "text", "Short name of the plan; may be empty."),
            Column("description", "text", "What the plan is for, as its authors put it."),
            Column("type", "text", "Kind of plan: LIVE, or a library or template."),
            Column("updatedAt", "timestamp", "Last change (UTC); a changed rule may not move it."),
            Column("createdAt", "timestamp", "When the plan was made (UTC)."),
            Column("resourceSchemaId", "text", "Schema behind it; undocumented, may be null."),
        ),
        docs=f"{_DOCS}/Tracking-Plans",
        feature="Protocols",
        event_types=("Tracking Plan",),
    ),
    Endpoint(
        name="tracking_plan_rules",
        group="inventory",
        path="/tracking-plans/{trackingPlanId}/rules",
        data_selector="data.rules",
        primary_key=("trackingPlanId", "type", "key", "version"),
        description=(
            "One row per rule of a tracking plan: what one event, or one kind of call, may hold."
            " Several versions of a rule can stand side by side. There is no id: a rule is its"
            " plan, type, key and version together."
        ),
        columns=(
            Column("trackingPlanId", "text", "Plan of the rule; joins to tracking_plans.id."),
            Column("type", "text", "Kind of call it is for; COMMON stands for all kinds."),
            Column("key", "text", "Event of a TRACK rule; empty where it has none.", missing=""),
            Column("version", "bigint", "Version of the rule."),
            Column("jsonSchema", "json", "The rule itself: JSON schema, draft 7.", redact="shape"),
            Column("createdAt", "timestamp", "When the rule was made (UTC)."),
            Column("updatedAt", "timestamp", "Last change of the rule (UTC)."),
            Column("deprecatedAt", "timestamp", "When it was deprecated (UTC); null if it is not."),
        ),
        docs=f"{_DOCS}/Tracking-Plans",
        feature="Protocols",
        slice=Parent("tracking_plans", "trackingPlanId"),
        rate_limit=200,
        references=(Reference("trackingPlanId", "tracking_plans"),),
        event_types=("Tracking Plan",),
    ),
    Endpoint(
        name="tracking_plan_sources",
        group="inventory",
        path="/tracking-plans/{trackingPlanId}/sources",
        data_selector="data.sources",
        primary_key=("trackingPlanId", "id"),
        description=(
            "One row per source that is held to a tracking plan. A source has one plan at most. The"
            " API repeats the whole source here; only its id is kept, all else is in sources."
        ),
        columns=(
            Column("trackingPlanId", "text", "Tracking plan; joins to tracking_plans.id."),
            Column("id", "text", "Source; joins to sources.id."),
        ),
        docs=f"{_DOCS}/Tracking-Plans",
        feature="Protocols",
        slice=Parent("tracking_plans", "trackingPlanId"),
        ids_only=True,
        references=(Reference("trackingPlanId", "tracking_plans"), Reference("id", "sources")),
        event_types=("Tracking Plan", *_PLAN_OF_SOURCE),
    ),
    Endpoint(
        name="functions",
        group="inventory",
        path="/functions",
        data_selector="data.functions",
        primary_key=("id",),
        description=(
            "One row per function, code of the workspace's own that Segment runs as a source, as a"
            " destination or in between. The code itself is not in the list."
        ),
        columns=(
            Column("id", "text", "Identifier of the function."),
            Column("resourceType", "text", "Kind of function, such as SOURCE or DESTINATION."),
            Column("createdAt", "timestamp", "When the function was made (UTC)."),
            Column("createdBy", "text", "Author; an id of users, of a member who may have left."),
            Column("displayName", "text", "Name of the function."),
            Column("description", "text", "What the function does, as its authors put it."),
            Column("logoUrl", "text", "Address of its logo."),
            Column("catalogId", "text", "The metadata.id of sources or destinations that run it."),
        ),
        docs=f"{_DOCS}/Functions",
        feature="Functions",
        slice=Values(
            "resourceType",
            (
                "DESTINATION",
                "INSERT_DESTINATION",
                "INSERT_SOURCE",
                "INSERT_TRANSFORMATION",
                "SOURCE",
            ),
        ),
        event_types=("Source Function", "Destination Function"),
    ),
    Endpoint(
        name="destination_subscriptions",
        group="inventory",
        path="/destinations/{destinationId}/subscriptions",
        data_selector="data.subscriptions",
        primary_key=("id",),
        description=(
            "One row per subscription of a destination: which events trigger which of its actions,"
            " and with which mapping. Destinations that know no actions have none."
        ),
        columns=(
            Column("id", "text", "Identifier of the subscription."),
            Column("name", "text", "Name shown in the app."),
            Column("actionId", "text", "Action; an id within the destination's metadata.actions."),
            Column("actionSlug", "text", "Short name of the action."),
            Column("destinationId", "text", "Destination; joins to destinations.id."),
            Column("enabled", "bool", "False if it is switched off."),
            Column(
                "settings",
                "json",
                "Mapping of the action's fields; the keys depend on the action.",
                redact="shape_and_key",
            ),
            Column("trigger", "text", "Which events trigger it, as an FQL expression."),
            Column("modelId", "text", "Reverse ETL model that feeds it; empty for event streams."),
            Column("reverseETLSchedule", "json", "When it runs, if a reverse ETL model feeds it."),
        ),
        docs=f"{_DOCS}/Destinations",
        stage="v1alpha",
        feature="Destination Subscriptions",
        slice=Parent("destinations", "destinationId"),
        references=(
            Reference("destinationId", "destinations"),
            Reference("modelId", "reverse_etl_models"),
        ),
        event_types=("Integration", "Destination"),
    ),
    Endpoint(
        name="destination_filters",
        group="inventory",
        path="/destination/{destinationId}/filters",
        data_selector="data.filters",
        primary_key=("id",),
        description=(
            "One row per filter of a destination: which events it drops, samples or strips of"
            " properties. `if` is a reserved word in SQL: quote it."
        ),
        columns=(
            Column("id", "text", "Identifier of the filter."),
            _SOURCE_ID,
            Column("destinationId", "text", "Destination; joins to destinations.id."),
            Column("if", "text", "Which events the filter takes, as an FQL expression."),
            Column(
                "actions", "json", "What happens to them: drop, sample, keep or drop properties."
            ),
            Column("title", "text", "Title of the filter."),
            Column("description", "text", "What the filter is for, as its authors put it."),
            Column("enabled", "bool", "False if the filter is switched off."),
            Column("createdAt", "timestamp", "When the filter was made (UTC)."),
            Column("updatedAt", "timestamp", "Last change of the filter (UTC)."),
        ),
        docs=f"{_DOCS}/Destination-Filters",
        slice=Parent("destinations", "destinationId"),
        references=(_TO_SOURCE, Reference("destinationId", "destinations")),
        event_types=("Destination Filter",),
    ),
    Endpoint(
        name="warehouse_connected_sources",
        group="inventory",
        path="/warehouses/{warehouseId}/connected-sources",
        data_selector="data.sources",
        primary_key=("warehouseId", "id"),
        description=(
            "One row per warehouse and source that feeds it. The API repeats the whole source here;"
            " only its id is kept, all else is in sources."
        ),
        columns=(
            Column("warehouseId", "text", "Warehouse; joins to warehouses.id."),
            Column("id", "text", "Source; joins to sources.id."),
        ),
        docs=f"{_DOCS}/Warehouses",
        slice=Parent("warehouses", "warehouseId"),
        ids_only=True,
        references=(Reference("warehouseId", "warehouses"), Reference("id", "sources")),
        event_types=("Storage Destination",),
    ),
    Endpoint(
        name="source_schema_settings",
        group="inventory",
        path="/sources/{sourceId}/settings",
        data_selector="data.settings",
        primary_key=("sourceId",),
        description=(
            "One row per source: what happens to events that its tracking plan does not name or"
            " that break it. Without Protocols these are the defaults. No audit event tells of a"
            " change. `group` is a reserved word in SQL: quote it."
        ),
        columns=(
            _SOURCE_ID,
            Column("track", "json", "What happens to track calls: let through, blocked, trimmed."),
            Column("identify", "json", "The same for identify calls and their traits."),
            Column("group", "json", "The same for group calls and their traits."),
            Column("forwardingViolationsTo", "text", "Source that gets violations; may be empty."),
            Column(
                "forwardingBlockedEventsTo",
                "text",
                "Source that gets blocked events; may be empty.",
            ),
        ),
        docs=f"{_DOCS}/Sources",
        slice=Parent("sources", "sourceId"),
        single=True,
        paginated=False,
        references=(
            _TO_SOURCE,
            Reference("forwardingViolationsTo", "sources"),
            Reference("forwardingBlockedEventsTo", "sources"),
        ),
    ),
    Endpoint(
        name="audiences",
        group="inventory",
        path="/spaces/{spaceId}/audiences",
        data_selector="data.audiences",
        primary_key=("spaceId", "id"),
        description="One row per audience of a space: who is in it by which rule, and how many.",
        columns=(
            _SPACE_ID,
            *_COMPUTED,
            Column("audienceType", "text", "Whom it holds: USERS, ACCOUNTS or LINKED entities."),
            Column("computeCadence", "json", "Whether members are computed in batches or at once."),
            Column("size", "json", "Number of members, and what is counted."),
            Column("options", "json", "How members are computed: external ids, days of history."),
            Column("schedules", "json", "When it is computed; null, as the list is asked without."),
        ),
        docs=f"{_DOCS}/Audiences",
        feature="Audience",
        slice=Parent("spaces", "spaceId"),
        page_limit=200,
        rate_limit=60,
        references=(Reference("spaceId", "spaces"),),
        event_types=("Audience",),
    ),
    Endpoint(
        name="computed_traits",
        group="inventory",
        path="/spaces/{spaceId}/computed-traits",
        data_selector="data.computedTraits",
        primary_key=("spaceId", "id"),
        description="One row per computed trait of a space: a figure worked out for each profile.",
        columns=(
            _SPACE_ID,
            *_COMPUTED,
            Column("options", "json", "How it is computed: anonymous users, days of history."),
        ),
        docs=f"{_DOCS}/Computed-Traits",
        stage="v1alpha",
        feature="Computed Trait",
        slice=Parent("spaces", "spaceId"),
        rate_limit=25,
        references=(Reference("spaceId", "spaces"),),
        event_types=("Computed Trait",),
    ),
    # catalog: what could be connected, the same for every workspace
    Endpoint(
        name="catalog_destinations",
        group="catalog",
        path="/catalog/destinations",
        data_selector="data.destinationsCatalog",
        primary_key=("id",),
        description=(
            "One row per kind of destination on offer, whether the workspace uses it or not. Rows"
            " are large: select the columns that you need."
        ),
        columns=(
            *_CATALOG_ENTRY,
            *_CATALOG_LISTING,
            Column("previousNames", "json", "Names it went by before.", redact="public"),
            Column("website", "text", "Site of the company behind the tool."),
            Column(
                "components",
                "json",
                "Code that it ships per platform, and who owns the code.",
                redact="public",
            ),
            Column(
                "supportedFeatures",
                "json",
                "Which connection modes it has, and replay.",
                redact="public",
            ),
            Column(
                "supportedMethods",
                "json",
                "Calls that it accepts, such as track and identify.",
                redact="public",
            ),
            Column(
                "supportedPlatforms", "json", "Platforms that may send it events.", redact="public"
            ),
            Column("supportedRegions", "json", "Regions in which it can be used.", redact="public"),
            Column(
                "regionEndpoints",
                "json",
                "Endpoints that it has in those regions.",
                redact="public",
            ),
            Column("multiInstanceSupportedVersion", "text", "Support for several per source."),
            Column(
                "actions",
                "json",
                "Actions that it can perform, with their input fields.",
                redact="public",
            ),
            Column(
                "presets",
                "json",
                "Subscriptions that are prepared for new connections.",
                redact="public",
            ),
            Column(
                "contacts",
                "json",
                "People to ask about the integration.",
                personal=True,
                redact="public",
            ),
        ),
        docs=f"{_DOCS}/Catalog",
    ),
    Endpoint(
        name="catalog_sources",
        group="catalog",
        path="/catalog/sources",
        data_selector="data.sourcesCatalog",
        primary_key=("id",),
        description="One row per kind of source on offer, whether the workspace uses it or not.",
        columns=(
            *_CATALOG_ENTRY,
            *_CATALOG_LISTING,
            Column("isCloudEventSource", "bool", "True for a cloud app that sends events."),
        ),
        docs=f"{_DOCS}/Catalog",
    ),
    Endpoint(
        name="catalog_warehouses",
        group="catalog",
        path="/catalog/warehouses",
        data_selector="data.warehousesCatalog",
        primary_key=("id",),
        description="One row per kind of warehouse on offer, whether the workspace uses it or not.",
        columns=_CATALOG_ENTRY,
        docs=f"{_DOCS}/Catalog",
    ),
    # identity: who may do what, and who did
    Endpoint(
        name="users",
        group="identity",
        path="/users",
        data_selector="data.users",
        primary_key=("id",),
        description=(
            "One row per member of the workspace, with the roles they hold. People who were invited"
            " and have not accepted yet are not among them."
        ),
        columns=(
            Column("id", "text", "Identifier of the user."),
            Column("name", "text", "Name of the person; may be empty.", personal=True),
            Column("email", "text", "E-mail address the person signs in with.", personal=True),
            Column("permissions", "json", "Roles held, each with the resources it is limited to."),
        ),
        docs=f"{_DOCS}/IAM-Users",
        references=(Reference("permissions[].roleId", "roles"),),
        event_types=(
            "User",
            "New Segment User",
            "Non-Segment User",
            "Invite",
            "Policy",
            "User Policy",
            "Group Membership",  # deleting a user ends its memberships (IAMUsersApi.md)
        ),
    ),
    Endpoint(
        name="invites",
        group="identity",
        path="/invites",
        data_selector="data.invites",
        primary_key=("email",),
        description=(
            "One row per invitation to the workspace that has not been accepted yet. A row that"
            " goes was accepted, withdrawn or has expired; the person then may be among the users."
        ),
        columns=(Column("email", "text", "E-mail address that was invited.", personal=True),),
        docs=f"{_DOCS}/IAM-Users",
        strings="email",
        event_types=("Invite", "New Segment User", "Non-Segment User", "User Invite"),
    ),
    Endpoint(
        name="groups",
        group="identity",
        path="/groups",
        data_selector="data.userGroups",
        primary_key=("id",),
        description=(
            "One row per user group. Its members, who are in group_users, hold the roles of the"
            " group besides those of their own."
        ),
        columns=(
            Column("id", "text", "Identifier of the group."),
            Column("name", "text", "Name of the group."),
            Column("memberCount", "bigint", "Members; whether invitations count is unknown."),
            Column("permissions", "json", "Roles given, each with the resources it is limited to."),
        ),
        docs=f"{_DOCS}/IAM-Groups",
        references=(Reference("permissions[].roleId", "roles"),),
        event_types=("User Group", "User Group Policy", *_GROUP_MEMBERS, "Policy"),
    ),
    Endpoint(
        name="group_users",
        group="identity",
        path="/groups/{userGroupId}/users",
        data_selector="data.users",
        primary_key=("userGroupId", "id"),
        description="One row per group and member; a person in two groups makes two rows.",
        columns=(
            Column("userGroupId", "text", "Group; joins to groups.id."),
            Column("id", "text", "Member; joins to users.id."),
            Column("name", "text", "Name of the person; repeats users.", personal=True),
            Column("email", "text", "E-mail address; repeats users.", personal=True),
        ),
        docs=f"{_DOCS}/IAM-Groups",
        slice=Parent("groups", "userGroupId"),
        references=(Reference("userGroupId", "groups"), Reference("id", "users")),
        event_types=_GROUP_MEMBERS,
    ),
    Endpoint(
        name="group_invites",
        group="identity",
        path="/groups/{userGroupId}/invites",
        data_selector="data.emails",
        primary_key=("userGroupId", "email"),
        description=(
            "One row per group and person who has been invited to it and has not accepted yet."
        ),
        columns=(
            Column("userGroupId", "text", "Group; joins to groups.id."),
            Column(
                "email", "text", "E-mail address invited; joins to invites.email.", personal=True
            ),
        ),
        docs=f"{_DOCS}/IAM-Groups",
        slice=Parent("groups", "userGroupId"),
        strings="email",
        references=(Reference("userGroupId", "groups"), Reference("email", "invites", "email")),
        event_types=_GROUP_INVITED,
    ),
    Endpoint(
        name="roles",
        group="identity",
        path="/roles",
        data_selector="data.roles",
        primary_key=("id",),
        description="One row per role that users, user groups and API tokens can be given.",
        columns=(
            Column("id", "text", "Identifier of the role."),
            Column("name", "text", "Name of the role, such as Workspace Owner."),
            Column("description", "text", "What somebody with this role may do."),
        ),
        docs=f"{_DOCS}/IAM-Roles",
        # a policy ties a user to a role, which may be one that has not been loaded yet
        event_types=("Role", "Policy", "User Policy", "User Group Policy"),
    ),
    Endpoint(
        name="labels",
        group="identity",
        path="/labels",
        data_selector="data.labels",
        primary_key=("key", "value"),
        description=(
            "One row per label, a key and a value that group resources for access control. There is"
            " no id: a label is its key and value together."
        ),
        columns=(
            Column("key", "text", "Left half of the label, such as environment; repeats."),
            Column("value", "text", "Right half of the label, such as production."),
            Column("description", "text", "What the label is for; may be empty."),
        ),
        docs=f"{_DOCS}/Labels",
        paginated=False,
        event_types=("Label",),
    ),
    Endpoint(
        name="audit_events",
        group="identity",
        path="/audit-events",
        data_selector="data.events",
        primary_key=("id",),
        description=(
            "One row per thing that somebody did in the workspace. Segment keeps 90 days; the table"
            " keeps every event it has ever loaded."
        ),
        columns=(
            Column("id", "text", "Identifier of the event; contains a slash."),
            Column("timestamp", "timestamp", "Moment of the event (UTC); many can share a second."),
            Column("type", "text", "What was done, such as Source Created; new names can appear."),
            Column("actor", "text", "User or token behind it: kind/identifier.", personal=True),
            Column("actorEmail", "text", "E-mail of that user; null for a token.", personal=True),
            Column("resourceId", "text", "Identifier of the resource it was done to."),
            Column("resourceType", "text", "Kind of that resource; new kinds can appear."),
            Column(
                "resourceName",
                "text",
                "Name of that resource; of an invitation the person's e-mail address.",
                personal=True,
            ),
        ),
        docs=f"{_DOCS}/Audit-Trail",
        feature="Audit Trail",
        cursor="timestamp",
        parts=(
            Part(
                Column("actorKind", "text", "Kind of actor: user or a kind of token."),
                "actor",
                "kind",
            ),
            Part(
                Column(
                    "actorId",
                    "text",
                    "Identifier of the actor; of a user it joins to users.id.",
                    personal=True,
                ),
                "actor",
                "id",
            ),
        ),
    ),
    # usage: what it costs
    Endpoint(
        name="usage_api_calls_daily",
        group="usage",
        path="/usage/api-calls/daily",
        data_selector="data.dailyWorkspaceAPICallsUsage",
        primary_key=("timestamp",),
        description=(
            "One row per day: API calls of the workspace from the first of the month to that day."
            " Do not add these up; the day's own figure is in `daily_api_calls`."
        ),
        columns=(_DAY, _API_CALLS),
        docs=f"{_DOCS}/API-Calls",
        slice=Months(),
    ),
    Endpoint(
        name="usage_mtu_daily",
        group="usage",
        path="/usage/mtu/daily",
        data_selector="data.dailyWorkspaceMTUUsage",
        primary_key=("timestamp",),
        description=(
            "One row per day: tracked users of the workspace from the first of the month to that"
            " day. Do not add rows up; a month's figure is that of its last day, and what a day"
            " added is in the `daily_` columns. Billed are the users who were identified, or never"
            " were: `identified` and `never_identified`"
            " together (https://segment.com/docs/guides/usage-and-billing/mtus-and-throughput)."
        ),
        columns=(_DAY, *_MTU),
        docs=f"{_DOCS}/Monthly-Tracked-Users",
        slice=Months(),
    ),
    Endpoint(
        name="usage_api_calls_sources_daily",
        group="usage",
        path="/usage/api-calls/sources/daily",
        data_selector="data.dailyPerSourceAPICallsUsage",
        primary_key=("sourceId", "timestamp"),
        description=(
            "One row per source and day: its API calls from the first of the month to that day. Do"
            " not add these up; the day's own figure is in `daily_api_calls`."
        ),
        columns=(_SOURCE_ID, _DAY, _API_CALLS),
        docs=f"{_DOCS}/API-Calls",
        slice=Months(),
        references=(_TO_SOURCE,),
    ),
    Endpoint(
        name="usage_mtu_sources_daily",
        group="usage",
        path="/usage/mtu/sources/daily",
        data_selector="data.dailyPerSourceMTUUsage",
        primary_key=("sourceId", "timestamp"),
        description=(
            "One row per source and day: its tracked users from the first of the month to that day."
            " Do not add up days, nor sources: one user can be seen by several. What a day added is"
            " in the `daily_` columns."
        ),
        columns=(_SOURCE_ID, _DAY, *_MTU),
        docs=f"{_DOCS}/Monthly-Tracked-Users",
        slice=Months(),
        references=(_TO_SOURCE,),
    ),
    Endpoint(
        name="events_volume",
        group="usage",
        path="/events/volume",
        data_selector="data.result",
        primary_key=("source.id", "eventType", "eventName", "time"),
        description=(
            "One row per source, kind of call, event and day: how many events came in. Not"
            " cumulative, so days and sources add up. The table keeps every day it has ever loaded."
        ),
        columns=(
            Column("source.id", "text", "Source concerned; joins to sources.id.", missing=""),
            Column("source.slug", "text", "Slug of the source at the time of the load."),
            Column("eventType", "text", "Kind of call, such as TRACK or IDENTIFY.", missing=""),
            Column("eventName", "text", "Event of a track call; empty for others.", missing=""),
            Column("time", "timestamp", "The day, by its first moment (UTC)."),
            Column("count", "bigint", "Valid events received on the day; today's still grows."),
        ),
        docs=f"{_DOCS}/Events",
        slice=Window(day="time"),
        params=(
            ("granularity", "DAY"),
            ("groupBy.0", "source"),
            ("groupBy.1", "eventType"),
            ("groupBy.2", "eventName"),
        ),
        unfold="series",
        rate_limit=60,
        references=(Reference("source.id", "sources"),),
    ),
)

GROUPS: Final[tuple[Group, ...]] = get_args(Group)
BY_NAME: Final[Mapping[str, Endpoint]] = MappingProxyType({e.name: e for e in ENDPOINTS})

DETAILS: Final = tuple(endpoint for endpoint in ENDPOINTS if endpoint.detail)
"""What costs a request for each record of another list, in all groups."""


def in_group(group: str) -> tuple[Endpoint, ...]:
    """Return the endpoints of ``group``, in the order of :data:`ENDPOINTS`."""
    return tuple(endpoint for endpoint in ENDPOINTS if endpoint.group == group)
