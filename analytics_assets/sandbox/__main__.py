"""Makes ``python -m analytics_assets.sandbox`` the same as ``analytics-sandbox``."""

import sys

from analytics_assets.sandbox.cli import main

sys.exit(main())
