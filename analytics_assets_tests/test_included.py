"""Assets that are left out: the workspace no longer has their feature, or nobody wants them."""

from __future__ import annotations

import pytest

from analytics_assets.orchestration.factory import build_segment_definitions
from analytics_assets.orchestration.included import included
from analytics_assets.segment.endpoints import in_group
from analytics_assets.segment.errors import SettingError
from analytics_assets_tests.harness import ALL_ASSETS, ALL_TABLES, Project

USAGE = [endpoint.name for endpoint in in_group("usage")]


def test_a_run_of_everything_leaves_out_what_is_excluded(project: Project) -> None:
    """Prevents that a lost feature fails each run for good; children then read their parent."""
    left_out = ["spaces", "groups", *USAGE]
    done = project.run("*", ANALYTICS_EXCLUDE=" , ".join(left_out))
    assert done.returncode == 0, done.stdout[-3000:]
    assert project.tables() == ALL_ASSETS - {*left_out}
    project.assert_equal(ALL_TABLES - {*left_out})


@pytest.mark.unit
def test_jobs_and_sensors_know_only_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a job without assets, or a sensor that asks for one that is not there."""
    monkeypatch.setenv("ANALYTICS_EXCLUDE", ",".join(["sources", *USAGE]))
    repository = build_segment_definitions().get_repository_def()
    keys = {key.to_user_string() for key in repository.asset_graph.executable_asset_keys}
    assert keys == ALL_ASSETS - {"sources", *USAGE}
    assert not repository.has_job("usage_job")
    sensor = repository.get_sensor_def("workspace_changes")
    assert '"sources"' not in str(sensor.asset_selection)


@pytest.mark.unit
@pytest.mark.parametrize("listed", ["nosuch", "spaces,nosuch", "Spaces"])
def test_a_name_of_no_asset_is_one_sentence(monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    """Prevents that a slip of the pen leaves out nothing, without a word."""
    monkeypatch.setenv("ANALYTICS_EXCLUDE", listed)
    with pytest.raises(SettingError, match=r"^ANALYTICS_EXCLUDE names \w+, which is no asset; .+"):
        included()
