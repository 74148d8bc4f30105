"""A stand-in of the Segment Public API over HTTP on this machine, with an invented workspace.

Use it where the real service cannot be: to try the project without an account, in tests, and in
benchmarks.

>>> with Sandbox(Options(seed=3, rate_limit=600)) as sandbox:
...     load(sandbox.url, sandbox.token)
"""

from analytics_assets.sandbox.data import Workspace
from analytics_assets.sandbox.server import Options, Reply, RequestInfo, Sandbox

__all__ = ["Options", "Reply", "RequestInfo", "Sandbox", "Workspace"]
