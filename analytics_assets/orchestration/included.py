"""Which resources are assets: all but those that ``ANALYTICS_EXCLUDE`` names."""

from __future__ import annotations

import os

from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets.segment.errors import SettingError
from analytics_assets.segment.model import Endpoint


def included() -> tuple[Endpoint, ...]:
    """Return the resources that are assets, in the order of ``endpoints.py``.

    A table that has been loaded stays as it is when its asset is left out.

    Raises:
        SettingError: ANALYTICS_EXCLUDE names something else, or everything.
    """
    listed = os.environ.get("ANALYTICS_EXCLUDE", "").split(",")
    excluded = {name.strip() for name in listed if name.strip()}
    unknown = sorted(excluded - BY_NAME.keys())
    if unknown:
        raise SettingError(
            f"ANALYTICS_EXCLUDE names {', '.join(unknown)}, which is no asset; set it to names of"
            " assets, with commas between."
        )
    found = tuple(endpoint for endpoint in ENDPOINTS if endpoint.name not in excluded)
    if not found:
        raise SettingError("ANALYTICS_EXCLUDE names every asset, so that none is left.")
    return found
