"""The page on the tables: every column, how it loads, what it costs, how tables hang together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from analytics_assets.docs.costs import MID_SIZE, USUAL_LIMIT, Cost, cost_of, cost_of_run
from analytics_assets.segment.endpoints import BY_NAME, DETAILS, ENDPOINTS, GROUPS, in_group
from analytics_assets.segment.model import Column, Endpoint, Months, Reference, Values, Window

_HEAD: Final = """\
# The tables

Written from `segment/endpoints.py`. Do not edit this page; after a change of a row write it anew:
`python -m analytics_assets_tests.regenerate`. `python -m analytics_assets.docs tables` prints it.

Every table also has `_dlt_load_id`, the load that last brought the row; it joins to
`_dlt_loads.load_id`, whose `inserted_at` is the time of that load. Marks of a column:

- **key**: identifies a row, alone or with others; never null.
- **to**: points at a row of another table; checked with every load, not enforced.
- **personal**: is, or holds, personal data.
- **fingerprint**: stored as a fingerprint, never in the clear.
- **masked inside**: secrets within the value are stored as fingerprints.

As a source for dbt, with the keys of the assets, the tables are in [sources.yml](sources.yml).
For a key prefix, dataset and selection of your own:

```sh
python -m analytics_assets.docs sources --key-prefix team/segment --dataset copy --select users
```
"""
_MARKS: Final = {
    "secret": "fingerprint",
    "shape": "masked inside",
    "shape_and_key": "masked inside",
}


def tables_page() -> str:
    """Return the page, in Markdown with a Mermaid diagram for each group."""
    parts = [_HEAD, *_costs()]
    for group in GROUPS:
        endpoints = in_group(group)
        parts += [f"\n## {group}\n", *_diagram(endpoints)]
        for endpoint in endpoints:
            parts += _table(endpoint)
    return "\n".join(parts) + "\n"


def how_it_loads(endpoint: Endpoint) -> str:
    """Say in words how a list is asked for."""
    way = endpoint.slice
    if endpoint.parent:
        return f"a request for each row of {endpoint.parent.resource}, deletions marked"
    if isinstance(way, Months):
        return "month by month, the months that may have changed"
    if isinstance(way, Window):
        return f"in windows of {way.days} days, from the newest loaded day less an overlap"
    if endpoint.cursor:
        return "what is new since the last run, less an overlap"
    if isinstance(way, Values):
        return f"a request for each of {len(way.values)} values of {way.param}, deletions marked"
    return "one object" if endpoint.single else "the whole list, deletions marked"


# What it costs.


def _costs() -> Iterator[str]:
    yield "\n## What it costs\n"
    sizes = ", ".join(f"{MID_SIZE[name]:,} {name}" for name in _COUNTED)
    yield (
        "Requests for a workspace of middle size, pages of 1,000 records, and the minutes that the"
        f" first load takes\nat least: at {USUAL_LIMIT} requests a minute, or at the lower limit"
        " that the API states for a list. A list that\nhangs on another one costs the requests of"
        f" that one, too. Assumed are {sizes}.\n"
    )
    yield "| asset | first load | later | minutes | limit a minute |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for endpoint in ENDPOINTS:
        limit = str(endpoint.rate_limit or "")
        yield _cost_row(endpoint.name, cost_of(endpoint), limit)
    yield (
        "\nA run of a job, with the lists that details hang on, and with `GET /`, by which every"
        " run learns whose\nworkspace the token is for; lists are read at the same time:\n"
    )
    yield "| job | first load | later | minutes |"
    yield "| --- | ---: | ---: | ---: |"
    for job, endpoints in _jobs():
        yield _cost_row(job, cost_of_run(endpoints))


_COUNTED: Final = (
    "sources",
    "destinations",
    "warehouses",
    "tracking_plans",
    "spaces",
    "users",
    "groups",
    "audit_events",
)
"""Lists whose sizes are told: on most of them others hang."""


def _jobs() -> Iterator[tuple[str, Sequence[Endpoint]]]:
    for group in GROUPS:
        yield f"{group}_job", [e for e in in_group(group) if not e.detail]
    parents = dict.fromkeys(e.parent.resource for e in DETAILS if e.parent)
    yield "details_job", [*DETAILS, *(BY_NAME[name] for name in parents)]
    yield "everything", ENDPOINTS


def _cost_row(name: str, cost: Cost, *more: str) -> str:
    cells = [name, f"{cost.first:,}", f"{cost.later:,}", f"{cost.minutes:.2f}", *more]
    return f"| {' | '.join(cells)} |"


# How the tables of a group hang together.


def _diagram(endpoints: Sequence[Endpoint]) -> Iterator[str]:
    yield "```mermaid\nerDiagram"
    for endpoint in endpoints:
        yield f"    {endpoint.name} {{"
        for column in endpoint.columns:
            if marks := _diagram_marks(endpoint, column):
                yield f"        {column.type} {column.name} {marks}"
        yield "    }"
    for endpoint in endpoints:
        for reference in endpoint.references:
            many = _many(endpoint, reference)
            yield f'    {endpoint.name} {many} {reference.table} : "{path(endpoint, reference)}"'
    yield "```\n"


def _diagram_marks(endpoint: Endpoint, column: Column) -> str:
    foreign = any(_column(endpoint, reference) == column for reference in endpoint.references)
    key = column.name in endpoint.key_columns
    return ", ".join(mark for mark, there in (("PK", key), ("FK", foreign)) if there)


def _many(endpoint: Endpoint, reference: Reference) -> str:
    """Return how many rows may point where: to several, to exactly one, or to one or none."""
    if "[]" in reference.path:
        return "}o--o{"
    return "}o--||" if reference.path in endpoint.primary_key else "}o--o|"


def _column(endpoint: Endpoint, reference: Reference) -> Column:
    """Return the column that a reference starts in."""
    fields = {column.field: column for column in endpoint.columns}
    inside = reference.path.split(".")[0].removesuffix("[]")
    return fields.get(reference.path) or fields[inside]


def path(endpoint: Endpoint, reference: Reference) -> str:
    """Return the path of a reference with the name of the column in front."""
    column = _column(endpoint, reference)
    return column.name + reference.path.removeprefix(column.field)


# One table.


def _table(endpoint: Endpoint) -> Iterator[str]:
    cost = cost_of(endpoint)
    yield f"### {endpoint.name}\n"
    yield f"{endpoint.description}\n"
    yield f"- Loads: {how_it_loads(endpoint)}; {_scheduled(endpoint)}."
    yield f"- Asks: `GET {endpoint.path}` ([reference]({endpoint.docs})), {_limits(endpoint)}."
    yield f"- Costs: {_count(cost.first)}, {cost.later:,} later on."
    if endpoint.feature:
        yield f"- Needs the feature {endpoint.feature}."
    yield "\n| column | type | meaning | |\n| --- | --- | --- | --- |"
    for column in endpoint.table_columns:
        marks = ", ".join(_marks(endpoint, column))
        meaning = column.description.replace("|", "\\|")
        yield f"| {column.name} | {column.type} | {meaning} | {marks} |"
    yield ""


def _count(requests: int) -> str:
    return f"{requests:,} request{'' if requests == 1 else 's'}"


def _scheduled(endpoint: Endpoint) -> str:
    return "daily, by details_job" if endpoint.detail else f"by {endpoint.group}_job"


def _limits(endpoint: Endpoint) -> str:
    limits = [f"version {endpoint.stage}"]
    if endpoint.page_limit:
        limits.append(f"{endpoint.page_limit} a page")
    if endpoint.rate_limit:
        limits.append(f"{endpoint.rate_limit} requests a minute")
    return ", ".join(limits)


def _marks(endpoint: Endpoint, column: Column) -> Iterable[str]:
    if column.name in endpoint.key_columns:
        yield "key"
    for reference in endpoint.references:
        if _column(endpoint, reference) == column:
            inside = path(endpoint, reference).removeprefix(column.name)
            yield f"{inside.removeprefix('.')} to {reference.table}.{reference.column}".strip()
    if column.personal:
        yield "personal"
    if column.redacted:
        yield _MARKS[column.redact]
