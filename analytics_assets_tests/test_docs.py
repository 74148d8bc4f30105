"""The pages on the tables: they say what the rows say, and what a load really costs.

After a change of a row write them anew: ``python -m analytics_assets_tests.regenerate``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from analytics_assets.docs.__main__ import main
from analytics_assets.docs.costs import EVERY_RUN, MID_SIZE, cost_of, cost_of_run
from analytics_assets.docs.dbt import sources_yml
from analytics_assets.docs.tables import tables_page
from analytics_assets.sandbox import Workspace
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS, GROUPS, in_group
from analytics_assets.segment.model import Endpoint

pytestmark = pytest.mark.unit
FOLDER = Path(__file__).resolve().parent.parent / "analytics_assets" / "docs"
DOCUMENTS: Mapping[Path, Callable[[], str]] = {
    FOLDER / "tables.md": tables_page,
    FOLDER / "sources.yml": sources_yml,
}
every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.name)


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_a_document_is_what_the_rows_make_of_it(file: Path) -> None:
    """Prevents a page that speaks of columns which are gone, or is silent about new ones."""
    assert file.read_text("utf-8") == DOCUMENTS[file]()


def section(endpoint: Endpoint) -> str:
    """Return what the page says of one table."""
    return tables_page().split(f"### {endpoint.name}\n")[1].split("\n##")[0]


@every_endpoint
def test_the_page_says_all_of_a_table(endpoint: Endpoint) -> None:
    """Prevents a table of which a column, its mark or its feature is not told."""
    text = section(endpoint)
    rows = {
        row[0]: row for row in re.findall(r"^\| (\w+) \| (\w+) \| (.+) \| (.*) \|$", text, re.M)
    }
    assert list(rows) == [column.name for column in endpoint.table_columns]
    for column in endpoint.table_columns:
        _, kind, meaning, marks = rows[column.name]
        assert (kind, meaning) == (column.type, column.description)
        assert ("key" in marks.split(", ")) == (column.name in endpoint.key_columns)
        assert ("personal" in marks.split(", ")) == column.personal
        assert ("fingerprint" in marks) == column.secret
        assert ("masked" in marks) == (column.redacted and not column.secret)
    for reference in endpoint.references:
        assert f"to {reference.table}.{reference.column}" in text
    assert f"`GET {endpoint.path}`" in text
    assert (f"feature {endpoint.feature}." in text) == bool(endpoint.feature)
    assert ("details_job" in text) == ("{" in endpoint.path)


@pytest.mark.parametrize("group", GROUPS)
def test_a_diagram_shows_every_table_key_and_reference(group: Any) -> None:
    """Prevents a picture without the lines for which one looks at it, or one that is not drawn."""
    block = tables_page().split(f"\n## {group}\n")[1].split("```mermaid\n")[1].split("```")[0]
    head, *lines = block.rstrip().splitlines()
    assert head == "erDiagram"
    boxes = re.findall(r"^    (\w+) \{\n((?:        .+\n)*)    \}$", block, re.M)
    assert [name for name, _ in boxes] == [endpoint.name for endpoint in in_group(group)]
    for name, body in boxes:
        found = re.findall(r"^        [a-z]+ (\w+) (PK|FK|PK, FK)$", body, re.M)
        assert len(found) == body.count("\n")
        assert [n for n, mark in found if "PK" in mark] == [
            column.name
            for column in BY_NAME[name].columns
            if column.name in BY_NAME[name].key_columns
        ]
    drawn = [
        re.fullmatch(r'    (\w+) \}o--(?:\|\||o\||o\{) (\w+) : "[\w.\[\]]+"', x) for x in lines
    ]
    assert Counter((match[1], match[2]) for match in drawn if match) == Counter(
        (e.name, reference.table) for e in in_group(group) for reference in e.references
    )


def test_the_assumed_workspace_is_the_sandbox() -> None:
    """Prevents an arithmetic about a workspace that no test has loaded."""
    workspace = Workspace()
    named = {name: count for name, count in MID_SIZE.items() if not BY_NAME[name].monthly}
    assert {name: len(workspace.records(name)) for name in named} == named
    others = [e.name for e in ENDPOINTS if not (e.parent or e.by_day) and e.name not in named]
    assert all(len(workspace.records(name)) <= 1000 for name in others)


def test_costs_written_down_by_hand() -> None:
    """Prevents a mistake that the page shares with what works the costs out."""
    found = {name: (cost_of(BY_NAME[name]).first, cost_of(BY_NAME[name]).later) for name in BY_NAME}
    expected = {
        "workspace": (1, 1),
        "sources": (1, 1),
        "tracking_plan_rules": (30, 30),
        "functions": (5, 5),
        "destination_filters": (200, 200),
        "source_schema_settings": (120, 120),
        "warehouse_connected_sources": (6, 6),
        "audiences": (2, 2),
        "group_invites": (10, 10),
        "audit_events": (5, 1),
        "usage_mtu_daily": (13, 2),
        "usage_mtu_sources_daily": (52, 8),
        "events_volume": (3, 1),
    }
    assert {name: found[name] for name in expected} == expected
    assert cost_of(BY_NAME["computed_traits"]).minutes == 2 / 25
    run = cost_of_run([BY_NAME["sources"], BY_NAME["source_schema_settings"]])
    assert (run.first, run.minutes) == (EVERY_RUN + 121, (EVERY_RUN + 121) / 600)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Return the only source of the file that the command prints."""
    main(["sources", *words])
    content = yaml.safe_load(capsys.readouterr().out)
    (source,) = content["sources"]
    assert isinstance(source, dict)
    return source


def test_the_command_prints_sources_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents tables of dbt that are no assets of Dagster, so that the lineage ends."""
    source = printed(
        capsys, "--key-prefix", "team/segment", "--dataset", "copy", "--select", "usage, users"
    )
    names = ["users", *(endpoint.name for endpoint in in_group("usage"))]
    assert (source["name"], source["schema"]) == ("segment", "copy")
    assert [table["name"] for table in source["tables"]] == names
    for table in source["tables"]:
        endpoint = BY_NAME[table["name"]]
        assert table["meta"]["dagster"]["asset_key"] == ["team", "segment", endpoint.name]
        assert table["description"] == endpoint.description
        columns = {column["name"]: column for column in table["columns"]}
        assert list(columns) == [column.name for column in endpoint.table_columns]
        tested = [name for name, column in columns.items() if "data_tests" in column]
        assert sorted(tested) == sorted(endpoint.key_columns)
    email = next(c for c in source["tables"][0]["columns"] if c["name"] == "email")
    assert email["meta"] == {"personal_data": True}


def test_without_options_keys_are_those_of_this_code_location(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Prevents an example whose tables line up with no asset."""
    from analytics_assets.definitions import defs
    from analytics_assets.reports.catalogue import reports

    keys = {tuple(t["meta"]["dagster"]["asset_key"]) for t in printed(capsys)["tables"]}
    others = {("segment_workspace",), *((name,) for name in reports())}  # no tables of the API
    there = {tuple(key.path) for key in defs.resolve_asset_graph().get_all_asset_keys()}
    assert keys == there - others


def test_an_unknown_selection_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents an empty source, or a traceback, for a mistyped name."""
    with pytest.raises(SystemExit):
        main(["sources", "--select", "usres"])
    assert "no asset or group is called usres" in capsys.readouterr().err


def test_the_command_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a command in the page's own head that does something else."""
    main(["tables"])
    assert capsys.readouterr().out == tables_page()
