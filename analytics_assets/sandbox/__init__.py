"""A stand-in of the Segment Public API over HTTP on this machine, with an invented workspace.

Use it where the real service cannot be: to try the project without an account, in tests, and in
benchmarks.

>>> with Sandbox(Options(seed=3, rate_limit=600)) as sandbox:
...     load(sandbox.url, sandbox.token)
"""

from analytics_assets.sandbox.lists import RESOURCES
from analytics_assets.sandbox.options import Bounds, Options, Order
from analytics_assets.sandbox.replies import Reply, RequestInfo
from analytics_assets.sandbox.server import Sandbox
from analytics_assets.sandbox.workspace import Workspace

__all__ = [
    "RESOURCES",
    "Bounds",
    "Options",
    "Order",
    "Reply",
    "RequestInfo",
    "Sandbox",
    "Workspace",
]
