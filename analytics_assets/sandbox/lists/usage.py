"""What it costs: usage, whose rows the ledger works out, and the volume of events."""

from __future__ import annotations

from analytics_assets.sandbox.resources import Choice, Resource

_DAY = ("timestamp",)
_SOURCE_AND_DAY = ("sourceId", "timestamp")

ROWS = (
    Resource(
        "usage_api_calls_daily",
        "/usage/api-calls/daily",
        "dailyWorkspaceAPICallsUsage",
        "usage",
        _DAY,
        last_next="missing",
    ),
    Resource("usage_mtu_daily", "/usage/mtu/daily", "dailyWorkspaceMTUUsage", "usage", _DAY),
    Resource(
        "usage_api_calls_sources_daily",
        "/usage/api-calls/sources/daily",
        "dailyPerSourceAPICallsUsage",
        "usage",
        _SOURCE_AND_DAY,
        last_next="missing",
    ),
    Resource(
        "usage_mtu_sources_daily",
        "/usage/mtu/sources/daily",
        "dailyPerSourceMTUUsage",
        "usage",
        _SOURCE_AND_DAY,
    ),
    Resource(
        "events_volume",
        "/events/volume",
        "result",
        "volume",
        ("source.id", "eventType", "eventName", "series.time"),
        choice=Choice("granularity", ("DAY", "HOUR", "MINUTE")),
        last_next="missing",
        rate_limit=60,
    ),
)
