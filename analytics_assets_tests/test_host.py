"""In somebody else's project: two workspaces beside assets, resources, ops and jobs of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dlt
import pytest
from dagster import (
    AssetKey,
    AssetSelection,
    AssetSpec,
    DagsterInstance,
    Definitions,
    EnvVar,
    ExecuteInProcessResult,
    define_asset_job,
)
from dagster_dlt.translator import DltResourceTranslatorData
from playwright.sync_api import expect

from analytics_assets import AnalyticsApi, SegmentTranslator, Warehouse, build_segment_definitions
from analytics_assets.sandbox import Options, Sandbox
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS, GROUPS, in_group
from analytics_assets.segment.errors import SettingError
from analytics_assets_tests.conftest import SMALL
from analytics_assets_tests.harness import (
    ALL_ASSETS,
    Project,
    assert_same,
    clean_environment,
    environment,
    expected_rows,
    failure_of,
    materialized,
)
from analytics_assets_tests.postgres import PostgresProject, postgres_variables
from analytics_assets_tests.test_browser import browser_page, dagster_dev, materialize_all
from analytics_assets_tests.test_postgres_bounds import locked

ALL = tuple(endpoint.name for endpoint in ENDPOINTS)
ROUNDS = 5
HOST = """
import os
from dagster import (
    AssetKey, AssetSelection, ConfigurableResource, Definitions, asset, job, logger, op,
)
import logging
from analytics_assets import SegmentTranslator, build_segment_definitions


class Warehouse(ConfigurableResource):
    kind: str = "the host's own"


class Eu(SegmentTranslator):
    def get_asset_spec(self, data):
        spec = super().get_asset_spec(data)
        return spec.replace_attributes(group_name="eu_" + spec.group_name)


@asset
def users(warehouse: Warehouse):
    with open(os.path.join(os.environ["DAGSTER_HOME"], "own_asset"), "w") as file:
        file.write(warehouse.kind)  # what a step prints may be lost when its run ends


@op
def usage():
    print("OWN OP")


@job
def inventory_job():
    usage()


@logger
def quiet(_):
    return logging.getLogger("quiet")


defs = Definitions.merge(
    Definitions(
        assets=[users],
        jobs=[inventory_job],
        resources={"warehouse": Warehouse()},
        loggers={"quiet": quiet},
    ),
    build_segment_definitions(name="us", token="US_TOKEN", base_url=os.environ["US_URL"]),
    build_segment_definitions(
        name="eu", token="EU_TOKEN", base_url=os.environ["EU_URL"], translator=Eu()
    ),
)
"""


@dataclass
class Host:
    """A project with definitions of its own and two workspaces."""

    us: Project
    eu: Project

    def run(self, program: str, *words: str) -> str:
        """Run a program of the environment on the host's file; return what it printed."""
        path = str(Path(sys.executable).with_name(program))
        done = self.us.command(path, *words, "-f", "host.py")
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    def assert_all_equal(self) -> None:
        """Assert that each region has all tables, with what its sandbox serves."""
        for region in ("us", "eu"):
            self.assert_equal(region, ALL)
            assert self.tables(region) - {"record_changes"} == ALL_ASSETS

    def assert_equal(self, region: str, names: Sequence[str]) -> None:
        """Assert that tables of a region hold what its sandbox serves."""
        project = getattr(self, region)
        for name in names:
            endpoint = BY_NAME[name]
            if not endpoint.by_day:
                served = project.sandbox.served(name)
                assert_same(name, project.rows(name), expected_rows(endpoint, served))

    def tables(self, region: str) -> set[str]:
        """Return the tables of a region."""
        return set(getattr(self, region).tables())


class _Duckdb(Project):
    """A project whose dataset in the DuckDB file has another name."""

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        dataset = self.env["DATASET"]
        return super().query(sql.replace("'analytics'", f"'{dataset}'"), *parameters)

    def rows(self, table: str, *, live: bool = True) -> list[dict[str, Any]]:
        import duckdb

        from analytics_assets_tests.harness import comparable

        with duckdb.connect(str(self.database), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            found = connection.execute(f"SELECT * FROM {self.env['DATASET']}.{table}")
            names = [column[0] for column in found.description]
            rows = [dict(zip(names, values, strict=True)) for values in found.fetchall()]
        return comparable(BY_NAME[table], rows, live=live)


@pytest.fixture(params=["duckdb", pytest.param("postgres", marks=pytest.mark.heavy)])
def host(request: pytest.FixtureRequest, tmp_path: Path, postgres: str) -> Iterator[Host]:
    """Return a host whose two workspaces are two sandboxes of different seeds and sizes."""
    now = datetime.now(timezone.utc)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "host.py").write_text(HOST)
    with ExitStack() as stack:
        us = stack.enter_context(Sandbox(Options(scale=SMALL, seed=1), now=now))
        eu = stack.enter_context(Sandbox(Options(scale=3 * SMALL, seed=2), now=now))
        env = {
            **clean_environment(tmp_path),
            "US_URL": us.url,
            "US_TOKEN": us.token,
            "EU_URL": eu.url,
            "EU_TOKEN": eu.token,
            "ANALYTICS_DUCKDB_PATH": str(tmp_path / "warehouse.duckdb"),
            "DAGSTER_HOME": str(tmp_path / "home"),
        }
        if request.param == "postgres":
            variables = postgres_variables(postgres)
            del variables["ANALYTICS_DATASET"]
            env |= variables
            url = {"ANALYTICS_DATASET": "analytics_us"}, {"ANALYTICS_DATASET": "analytics_eu"}
            PostgresProject(us, tmp_path, env).query(
                "DROP SCHEMA IF EXISTS analytics_us CASCADE;"
                "DROP SCHEMA IF EXISTS analytics_eu CASCADE;"
                "DROP SCHEMA IF EXISTS analytics_us_staging CASCADE;"
                "DROP SCHEMA IF EXISTS analytics_eu_staging CASCADE"
            )
            yield Host(
                PostgresProject(us, tmp_path, env | url[0]),
                PostgresProject(eu, tmp_path, env | url[1]),
            )
        else:
            yield Host(
                _Duckdb(us, tmp_path, {**env, "DATASET": "analytics_us"}),
                _Duckdb(eu, tmp_path, {**env, "DATASET": "analytics_eu"}),
            )


@pytest.mark.parametrize(
    "words",
    [
        ("dagster", "asset", "materialize", "--select", "*"),
        pytest.param(("dg", "launch", "--assets", "*"), marks=pytest.mark.heavy),
    ],
    ids=["dagster", "dg"],
)
def test_two_workspaces_beside_the_hosts_own(host: Host, words: Sequence[str]) -> None:
    """Prevents a collision of names, a forced executor, or rows of one workspace in the other.

    Everything runs at once, each operation in a process of its own, as is Dagster's default.
    """
    host.run(*words)
    own = Path(host.us.env["DAGSTER_HOME"]) / "own_asset"
    assert own.read_text("utf-8") == "the host's own"
    host.assert_all_equal()
    assert len(host.us.rows("sources")) != len(host.eu.rows("sources"))


@pytest.mark.heavy
def test_two_workspaces_in_the_ui(host: Host) -> None:
    """Prevents groups, keys or lineage that only hold where nobody looks at them."""
    complaints: list[str] = []
    groups = (*GROUPS, *(f"eu_{group}" for group in GROUPS))
    with (
        dagster_dev(host.us, "-f", "host.py") as address,
        browser_page(complaints) as page,
    ):
        materialize_all(page, address, groups)
        host.assert_all_equal()
        for region in ("us", "eu"):
            rules = f"{address}/assets/{region}/tracking_plan_rules?view=lineage"
            page.goto(rules, wait_until="networkidle")
            for name in ("tracking_plan_rules", "tracking_plans"):
                expect(page.get_by_text(name, exact=True).first).to_be_visible()
            page.goto(f"{address}/assets/{region}/labels?view=checks", wait_until="networkidle")
            expect(page.get_by_text("row_count_not_halved").first).to_be_visible()
    assert [text for text in complaints if "https://dagster.io/" not in text] == []


@pytest.mark.heavy
def test_five_rounds_of_runs_that_overlap(host: Host) -> None:
    """Prevents lock failures, doubled rows and lost state where runs of both executors meet.

    Everything, each operation in a process of its own; jobs of ours, which run in one process; and
    both workspaces change between the rounds.
    """
    runs = [
        ("asset", "materialize", "--select", "*"),
        ("asset", "materialize", "--select", "key:us/sources,key:us/labels,key:eu/labels"),
        *(("job", "execute", "-j", name) for name in ("us_inventory_job", "eu_inventory_job")),
    ]
    # first Dagster's own storage, which processes that make it at the same time fail to make
    DagsterInstance.from_config(host.us.env["DAGSTER_HOME"]).dispose()
    for number in range(ROUNDS):
        for project in (host.us, host.eu):
            source = project.sandbox.served("sources")[number]
            project.sandbox.workspace.put("sources", {**source, "slug": f"round-{number}"})
            project.sandbox.workspace.remove("users", project.sandbox.served("users")[-1]["id"])
        with ThreadPoolExecutor(len(runs)) as pool:
            list(pool.map(lambda words: host.run("dagster", *words), runs))
        host.assert_all_equal()


def test_the_jobs_load_what_they_say(host: Host) -> None:
    """Prevents a job that ends with success and has loaded nothing, as its groups have new names.

    The host's own job of the same bare name stays the host's.
    """
    assert "OWN OP" in host.run("dagster", "job", "execute", "-j", "inventory_job")
    host.run("dagster", "job", "execute", "-j", "eu_catalog_job")
    names = [endpoint.name for endpoint in in_group("catalog")]
    assert host.tables("eu") == set(names)
    assert host.tables("us") == set()
    host.assert_equal("eu", names)


def run(
    definitions: Definitions, env: Mapping[str, str], *keys: AssetKey, **options: Any
) -> ExecuteInProcessResult:
    """Run some assets of definitions in this process; all if none is named."""
    selection = AssetSelection.assets(*keys) if keys else AssetSelection.all()
    job = define_asset_job("under_test", selection=selection)
    own = Definitions.merge(definitions, Definitions(jobs=[job]))
    with environment(env):
        return own.resolve_job_def("under_test").execute_in_process(
            raise_on_error=False, **{"instance": DagsterInstance.ephemeral(), **options}
        )


def specs_of(definitions: Definitions) -> list[AssetSpec]:
    """Return the specs of all assets that a run makes."""
    return [spec for spec in definitions.resolve_all_asset_specs() if spec.freshness_policy]


def test_baselines_do_not_cross(project: Project) -> None:
    """Prevents that one workspace is judged by the row counts of another.

    The second has a third of the rows, and by now as many loads behind it.
    """
    env = project.env
    big = Sandbox(Options(scale=3 * SMALL, seed=2), now=project.sandbox.clock())
    instance = DagsterInstance.ephemeral()
    with big as other:
        env |= {"BIG_TOKEN": other.token, "SMALL_TOKEN": project.sandbox.token}
        with environment(env):
            both = Definitions.merge(
                build_segment_definitions(
                    name="big", token="BIG_TOKEN", base_url=other.url, select=["users", "labels"]
                ),
                build_segment_definitions(
                    name="small",
                    token=EnvVar("SMALL_TOKEN"),
                    base_url=project.sandbox.url,
                    select=["users", "labels"],
                ),
            )
        for _ in range(2):
            result = run(both, env, instance=instance)
            assert failure_of(result) == ""
            checks = result.get_asset_check_evaluations()
            assert {check.asset_key.path[0] for check in checks} == {"big", "small"}
            assert [c.description for c in checks if not c.passed] == []
        compared = [c for c in checks if c.check_name == "row_count_not_halved"]
        assert not [c.description for c in compared if "no earlier count" in str(c.description)]


class Renamed(SegmentTranslator):
    """Gives assets other keys, groups, tags and owners."""

    def get_asset_spec(self, data: DltResourceTranslatorData) -> AssetSpec:
        """Describe the asset of one dlt resource."""
        spec = super().get_asset_spec(data)
        return spec.replace_attributes(
            key=AssetKey(["crm", f"segment_{data.resource.name}"]),
            group_name="crm",
            tags={**spec.tags, "team": "crm"},
            owners=["team:crm"],
        )


def test_what_the_translator_returns_holds_everywhere(project: Project) -> None:
    """Prevents keys that hold in the catalogue and not in the run, the checks or the sensor."""
    with environment(project.env):
        definitions = build_segment_definitions(name="own", translator=Renamed())
    specs = {spec.key: spec for spec in specs_of(definitions)}
    assert set(specs) == {AssetKey(["crm", f"segment_{name}"]) for name in ALL_ASSETS}
    assert {(spec.group_name, *spec.owners) for spec in specs.values()} == {("crm", "team:crm")}
    assert all(spec.tags["team"] == "crm" for spec in specs.values())
    rules = specs[AssetKey(["crm", "segment_tracking_plan_rules"])]
    assert [dep.asset_key.path[-1] for dep in rules.deps] == ["segment_tracking_plans"]
    assert all(spec.freshness_policy for spec in specs.values())

    with environment(project.env):
        job = definitions.resolve_job_def("own_identity_job")
        result = job.execute_in_process(instance=DagsterInstance.ephemeral())
    keys = {f"crm/segment_{e.name}" for e in in_group("identity") if not e.detail}
    assert set(materialized(result)) == keys
    checks = result.get_asset_check_evaluations()
    assert {check.asset_key.to_user_string() for check in checks} == keys
    assert len(project.query("SELECT * FROM analytics_own.users")) == len(
        project.sandbox.served("users")
    )
    changes = specs[AssetKey(["crm", "segment_changes"])]
    assert AssetKey(["crm", "segment_audit_events"]) in [dep.asset_key for dep in changes.deps]
    names = [sensor.name for sensor in definitions.sensors or ()]
    assert names == ["own_workspace_changes", "own_retries", "own_reports_due"]


def test_a_secret_manager_gives_the_token(project: Project) -> None:
    """Prevents that a token of a secret manager has to be put into the environment first."""
    token = project.env.pop("ANALYTICS_API_TOKEN")
    asked: list[int] = []

    def vault() -> str:
        asked.append(1)
        return token

    with environment(project.env):
        definitions = build_segment_definitions(token=vault, select=["labels"])
    assert asked == []
    result = run(definitions, project.env)
    assert failure_of(result) == ""
    assert asked == [1]
    assert token not in "".join(map(repr, result.all_events))


def test_a_secret_manager_that_fails_is_named(project: Project) -> None:
    """Prevents a traceback of somebody else's client, with the secret's address in it."""

    def vault() -> str:
        raise ConnectionError("vault sealed at https://u:hunter2hunter2@vault")

    with environment(project.env):
        definitions = build_segment_definitions(token=vault, select=["labels"])
    message = failure_of(run(definitions, project.env))
    assert message.startswith("The callable for the token failed: ConnectionError: vault sealed")
    assert "hunter2" not in message
    assert not project.sandbox.requests


def test_a_destination_object_brings_its_credentials(project: Project, postgres: str) -> None:
    """Prevents that credentials have to stand in the environment of every process.

    And that a server which is given so is waited for without end.
    """
    to = PostgresProject(
        project.sandbox, project.folder, project.env | postgres_variables(postgres)
    )
    del to.env["DESTINATION__POSTGRES__CREDENTIALS"]
    del to.env["ANALYTICS_DESTINATION"]
    with environment(to.env):
        definitions = build_segment_definitions(
            destination=dlt.destinations.postgres(postgres),
            dataset=to.dataset,
            select=["labels"],
            warehouse=Warehouse(table_lock_timeout=0.5),
        )
    assert failure_of(run(definitions, to.env)) == ""
    to.env["DESTINATION__POSTGRES__CREDENTIALS"] = postgres
    served = project.sandbox.served("labels")
    assert_same("labels", to.rows("labels"), expected_rows(BY_NAME["labels"], served))
    project.sandbox.workspace.put("labels", {**served[0], "description": "another"})
    with locked(to, "labels"):
        said = failure_of(run(definitions, to.env))
    assert "another session holds a lock on a table it needs, for more than 0.5 s" in said


@pytest.mark.parametrize(
    ("resource", "field", "value"),
    [
        ("api", "base_url", "http://127.0.0.1:9"),
        ("api", "token_variable", "HOME"),
        ("warehouse", "destination", "filesystem"),
        ("warehouse", "dataset", "elsewhere"),
        ("warehouse", "duckdb_path", "elsewhere.duckdb"),
    ],
)
def test_a_launch_cannot_send_token_or_rows_elsewhere(
    project: Project, resource: str, field: str, value: str
) -> None:
    """Prevents that whoever may start a run can have the token, or the rows, sent to a place."""
    configs: dict[str, dict[str, str]] = {"api": {}, "warehouse": {}} | {resource: {field: value}}
    result = project.materialize("labels", api=configs["api"], warehouse=configs["warehouse"])
    message = failure_of(result)
    assert f"The run config sets {field} of {resource}, which cannot be changed" in message
    assert not project.sandbox.requests
    assert not project.database.exists()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"token": "sgp_4kLq9vJ2mXw7"}, "token takes an EnvVar"),
        ({"name": "us-east"}, "name is 'us-east'"),
        ({"key_prefix": "us/east"}, "key_prefix is 'us/east', which is no asset key"),
        ({"select": ["sauces"]}, "select names 'sauces', which is no asset and no group"),
        ({"select": []}, "select names nothing"),
        ({"crons": {"hourly": "0 * * * *"}}, "crons names 'hourly'"),
        ({"crons": {"usage": "often"}}, "'often', which is not a cron string"),
        ({"owners": ["data"]}, "use e-mail addresses"),
        ({"destination": object()}, "destination takes the name of a dlt destination"),
        ({"destination": dlt.destinations.duckdb()}, "takes the path of its file"),
    ],
)
def test_an_argument_that_cannot_work_is_named(arguments: dict[str, Any], said: str) -> None:
    """Prevents definitions that load, and fail in the night."""
    with pytest.raises(SettingError) as caught:
        build_segment_definitions(**arguments)
    assert said in str(caught.value)
    assert "sgp_" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.unit
def test_two_workspaces_do_not_share_a_dataset() -> None:
    """Prevents that dlt mixes the staging tables and the state of two workspaces."""
    build_segment_definitions(name="one", dataset="shared_by_two")
    build_segment_definitions(
        name="one", dataset="shared_by_two"
    )  # a code location is loaded again
    with pytest.raises(SettingError, match="same dataset 'shared_by_two'; give each"):
        build_segment_definitions(name="two", dataset="shared_by_two")


@pytest.mark.unit
@pytest.mark.parametrize("kind", [AnalyticsApi, Warehouse])
def test_resources_refuse_fields_that_they_do_not_have(kind: type) -> None:
    """Prevents that ``AnalyticsApi(api_token=...)`` is accepted and dropped without a word."""
    with pytest.raises(SettingError, match="has no field 'api_token'; it has "):
        kind(api_token="x")


@pytest.mark.unit
def test_the_other_fields_of_a_resource_can_be_set() -> None:
    """Prevents that time-outs can be set in the launchpad only."""
    definitions = build_segment_definitions(
        name="tuned",
        base_url="https://eu1.api.segmentapis.com",
        api=AnalyticsApi(timeout=5, retries=1),
        warehouse=Warehouse(dataset="tuned_dataset", lock_timeout=7),
    )
    resources = definitions.resources or {}
    api, warehouse = resources["tuned_api"], resources["tuned_warehouse"]
    assert (api.timeout, api.retries, api.base_url) == (5, 1, "https://eu1.api.segmentapis.com")
    assert (warehouse.dataset, warehouse.lock_timeout) == ("tuned_dataset", 7)


SCAFFOLDED = """
[project]
name = "host"
version = "0.1"
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "host"
"""
DEFINITIONS = """
from pathlib import Path
from dagster import definitions, load_from_defs_folder

@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


def test_the_component_from_an_empty_folder(project: Project) -> None:
    """Prevents a component that dg does not list, scaffold, check, show or launch."""
    source = project.folder / "src" / "host"
    (source / "defs").mkdir(parents=True)
    (project.folder / "pyproject.toml").write_text(SCAFFOLDED)
    for package in (source, source / "defs"):
        (package / "__init__.py").touch()
    (source / "definitions.py").write_text(DEFINITIONS)
    project.env |= {
        "US_API_TOKEN": project.env.pop("ANALYTICS_API_TOKEN"),
        "PYTHONPATH": os.pathsep.join([str(source.parent), project.env["PYTHONPATH"]]),
        "DAGSTER_HOME": str(project.folder / "tmp"),
    }
    dg = str(Path(sys.executable).with_name("dg"))

    def said(*words: str) -> str:
        done = project.command(dg, *words)
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    assert "SegmentWorkspaceComponent" in said("list", "components", "--json")
    said("scaffold", "defs", "analytics_assets.SegmentWorkspaceComponent", "us")
    written = source / "defs" / "us" / "defs.yaml"
    assert "token: US_API_TOKEN" in written.read_text()
    said("check", "yaml")
    with written.open("a") as file:
        file.write(
            "  select: [labels, roles]\n"
            "  crons: {identity: 5 3 * * *}\n"
            "  translation:\n"
            '    group_name: "us_{{ spec.group_name }}"\n'
            '    tags: {table: "{{ resource.name }}"}\n'
        )
    said("check", "yaml")
    shown = said("list", "defs", "--json")
    listed = json.loads(shown[shown.index("{") :])
    assert {(a["asset_key"], a["group_name"]) for a in listed["assets"]} == {
        ("us/labels", "us_identity"),
        ("us/roles", "us_identity"),
        ("us/segment_workspace", "default"),
    }
    said("launch", "--job", "us_identity_job")
    served = project.sandbox.served("roles")
    assert len(project.query("SELECT * FROM analytics_us.roles")) == len(served)
    shutil.rmtree(source)
