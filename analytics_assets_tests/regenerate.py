"""Write anew what nobody can derive, and what a reviewer reads to see what a change does.

``python -m analytics_assets_tests.regenerate`` writes the wire contract of the sandbox, from the
facts on the API, the snapshot of all assets as Dagster shows them, the official examples that the
tests load, and the users' page on the tables with its source for dbt. Read the difference before
you commit it. Nothing is written without the facts at hand; see ``wire_contract.py`` for where they
are looked for.
"""

from __future__ import annotations

import sys

from analytics_assets_tests.test_docs import DOCUMENTS
from analytics_assets_tests.test_specs import SNAPSHOT, snapshot
from analytics_assets_tests.wire_contract import regenerate_examples, regenerate_wire_contract


def main() -> None:
    """Write all that can be written."""
    try:
        regenerate_wire_contract()
        regenerate_examples()
    except FileNotFoundError as error:
        sys.exit(str(error))
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")
    for file, write in DOCUMENTS.items():
        file.write_text(write(), encoding="utf-8")


if __name__ == "__main__":
    main()
