"""The UI, in a real browser: what a newcomer sees and clicks first."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Locator, Page, expect, sync_playwright

from analytics_assets.reports.model import GROUP as REPORTS
from analytics_assets.sandbox import Reply
from analytics_assets.sandbox.cli import plan_of
from analytics_assets.segment.endpoints import GROUPS
from analytics_assets_tests.harness import ALL_ASSETS, Project

PICTURES = Path(__file__).parent / "data" / "pictures"
expect.set_options(timeout=60_000)  # milliseconds: other tests keep the machine busy
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""


@contextmanager
def dagster_dev(project: Project, *target: str) -> Iterator[str]:
    """Run ``dagster dev``; yield its address once the code location has loaded.

    Args:
        project: whose folder and environment to run it in.
        target: words that name the code location; this project's own if there are none.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = project.folder / "home"
    home.mkdir(exist_ok=True)
    root = Path(__file__).resolve().parent.parent
    target = target or ("-w", str(root / "workspace.yaml"))
    words = ["dev", *target, "-h", "127.0.0.1", "-p", str(port)]
    log = (project.folder / "dev.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "dagster", *words],
        cwd=project.folder,
        env={**project.env, "DAGSTER_HOME": str(home)},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/server_info", project.folder / "dev.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
        log.close()


def _wait_for(url: str, log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=5).read()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(f"dagster dev did not answer:\n{log.read_text()[-3000:]}")


@contextmanager
def browser_page(complaints: list[str]) -> Iterator[Page]:
    """Open a page in headless Chromium; what its console complains of goes to ``complaints``."""
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.on(
            "console",
            lambda m: complaints.append(f"{m.text} {m.location}") if m.type == "error" else None,
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
        browser.close()


def test_materialize_all_in_the_ui(start: Callable[..., Project]) -> None:
    """Prevents a UI in which assets, the run button, row counts, charts or reasons do not show."""
    assert CHROMIUM, "install Chromium: apt-get install chromium"
    project = start()
    project.env |= plan_of(project.sandbox.workspace)
    complaints: list[str] = []
    with dagster_dev(project) as address, browser_page(complaints) as page:
        materialize_all(page, address, (*GROUPS, REPORTS))

        page.goto(f"{address}/runs", wait_until="networkidle")
        expect(page.get_by_text("Success").first).to_be_visible()
        page.set_viewport_size({"width": 1440, "height": 4800})  # rows out of sight are not made
        page.goto(f"{address}/assets", wait_until="networkidle")
        for name in sorted(ALL_ASSETS):
            expect(page.get_by_text(name, exact=True).first).to_be_visible()
        expect(page.get_by_text("Materialized").nth(len(ALL_ASSETS) - 1)).to_be_visible()
        page.set_viewport_size({"width": 1440, "height": 1720})
        picture(page, "assets.png")

        page.set_viewport_size({"width": 1440, "height": 1000})
        page.goto(f"{address}/assets/usage_api_calls_daily", wait_until="networkidle")
        rows = len(project.rows("usage_api_calls_daily"))
        expect(page.get_by_text("Row count")).to_be_visible()
        expect(page.get_by_text(str(rows), exact=True).first).to_be_visible()
        page.goto(f"{address}/assets/month_forecast?view=events", wait_until="networkidle")
        page.get_by_text("Show Markdown").first.click()
        chart = page.locator("img[src^='data:image/svg']").first
        expect(chart).to_be_visible()
        assert chart.evaluate("image => image.complete && image.naturalWidth > 200")
        picture(chart, "answer.png")
        page.goto(f"{address}/assets/month_forecast?view=lineage", wait_until="networkidle")
        for name in ("month_forecast", "usage_api_calls_daily", "usage_mtu_daily"):
            expect(page.get_by_text(name, exact=True).first).to_be_visible()
        expect(page.get_by_text("Loading...")).to_have_count(0)
        picture(page, "lineage.png")
        project.assert_equal()

        project.sandbox.intercept = lambda info: Reply(422) if info.path == "/labels" else None
        page.goto(f"{address}/assets/labels", wait_until="networkidle")
        page.get_by_role("button", name=re.compile("Materialize$")).first.click()
        wait_for_runs(address, "SUCCESS", "FAILURE")
        page.goto(f"{address}/assets/labels?view=checks", wait_until="networkidle")
        expect(page.get_by_text(re.compile("Not run: HTTP 422")).first).to_be_visible()
        assert page.get_by_text("unexpected error", exact=False).count() == 0
    # a script of Dagster's own site, which a page on a closed network cannot load
    assert [text for text in complaints if "https://dagster.io/" not in text] == []


def materialize_all(page: Page, address: str, groups: Iterable[str]) -> None:
    """See that groups show, press "Materialize all", and wait until all has loaded."""
    page.goto(f"{address}/asset-groups", wait_until="networkidle")
    page.get_by_role("button", name="Skip").click()  # an invitation to Dagster's community
    for group in groups:
        expect(page.get_by_text(group, exact=True).first).to_be_visible()
    page.get_by_role("button", name=re.compile("Materialize all")).click()
    wait_for_runs(address, "SUCCESS")


def wait_for_runs(address: str, *statuses: str) -> None:
    """Wait until there are as many runs as statuses, and they have ended so."""
    query = {"query": "{runsOrError{... on Runs{results{status}}}}"}
    end = time.monotonic() + 180
    while time.monotonic() < end:
        request = urllib.request.Request(
            f"{address}/graphql",
            json.dumps(query).encode(),
            {"Content-Type": "application/json"},
        )
        answer = json.loads(urllib.request.urlopen(request, timeout=30).read())
        found = [run["status"] for run in answer["data"]["runsOrError"]["results"]]
        if sorted(found) == sorted(statuses):
            return
        assert "FAILURE" not in found or "FAILURE" in statuses
        time.sleep(1)
    raise AssertionError("the run did not end")


def picture(shown: Page | Locator, name: str) -> None:
    """Keep a screenshot as the README's picture when ANALYTICS_PICTURES is set."""
    if os.environ.get("ANALYTICS_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        shown.screenshot(path=str(PICTURES / name))
