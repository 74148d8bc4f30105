"""The table of what the sandbox serves.

A list is one row, next to the functions that make its records: here is all there is to add for one
more. The rows of a kind stand in one module.
"""

from collections.abc import Mapping

from analytics_assets.sandbox.lists import (
    catalog,
    engage,
    functions,
    identity,
    inventory,
    protocols,
    routing,
    trail,
    usage,
)
from analytics_assets.sandbox.resources import Resource

RESOURCES: Mapping[str, Resource] = {
    row.name: row
    for module in (
        inventory,
        functions,
        protocols,
        routing,
        engage,
        catalog,
        identity,
        trail,
        usage,
    )
    for row in module.ROWS
}
"""Every list of the sandbox by its name."""
