"""The UI, in a real browser: what a newcomer sees and clicks first."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from analytics_assets_tests.harness import ALL_TABLES, Project

PICTURES = Path(__file__).parent / "data" / "pictures"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""


@contextmanager
def dagster_dev(project: Project) -> Iterator[str]:
    """Run ``dagster dev``; yield its address once the code location has loaded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = project.folder / "home"
    home.mkdir(exist_ok=True)
    root = Path(__file__).resolve().parent.parent
    words = ["dev", "-w", str(root / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)]
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
    """Prevents a UI in which assets, the run button, row counts or the chart do not work."""
    assert CHROMIUM, "install Chromium: apt-get install chromium"
    project = start()
    complaints: list[str] = []
    with dagster_dev(project) as address, browser_page(complaints) as page:
        page.goto(f"{address}/asset-groups", wait_until="networkidle")
        for group in ("inventory", "catalog", "identity", "usage"):
            expect(page.get_by_text(group, exact=True).first).to_be_visible(timeout=60_000)
        page.get_by_role("button", name=re.compile("Materialize all")).click()
        _confirm(page)
        _wait_for_success(address)
        page.goto(f"{address}/asset-groups", wait_until="networkidle")
        page.wait_for_timeout(3000)
        picture(page, "assets.png")
        page.goto(f"{address}/assets", wait_until="networkidle")
        for name in ALL_TABLES:
            assert page.get_by_text(name, exact=True).count() or _in_list(page, name), name
        page.goto(f"{address}/assets/usage_api_calls_daily", wait_until="networkidle")
        page.wait_for_timeout(3000)
        expect(page.get_by_text("row_count").first).to_be_visible(timeout=30_000)
        chart = page.locator("img[src^='data:image/png']").first
        picture(page, "usage.png")
        assert chart.count() or page.get_by_text("chart").count()
        assert page.get_by_text("An unexpected error").count() == 0
    project.assert_equal()
    assert complaints == []


def _confirm(page: Page) -> None:
    """Press the launch button of the dialog, if one asks for config or confirmation."""
    page.wait_for_timeout(1500)
    launch = page.get_by_role("button", name=re.compile("Launch|Materialize", re.IGNORECASE))
    if page.get_by_role("dialog").count() and launch.count() > 1:
        launch.last.click()


def _in_list(page: Page, name: str) -> bool:
    page.mouse.wheel(0, 1000)
    page.wait_for_timeout(500)
    return page.get_by_text(name, exact=True).count() > 0


def _wait_for_success(address: str) -> None:
    import json

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
        if found and all(status == "SUCCESS" for status in found):
            return
        assert "FAILURE" not in found
        time.sleep(1)
    raise AssertionError("the run did not end")


def picture(page: Page, name: str) -> None:
    """Keep a screenshot as the README's picture when ANALYTICS_PICTURES is set."""
    if os.environ.get("ANALYTICS_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        page.screenshot(path=str(PICTURES / name))
