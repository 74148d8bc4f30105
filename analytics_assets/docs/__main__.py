"""Print the page on the tables, or a source for dbt: ``python -m analytics_assets.docs``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from analytics_assets.docs.dbt import sources_yml
from analytics_assets.docs.tables import tables_page


def main(argv: Sequence[str] | None = None) -> None:
    """Write what is asked for to the standard output."""
    parser = argparse.ArgumentParser(prog="python -m analytics_assets.docs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tables", help="the page on the tables, in Markdown")
    sources = commands.add_parser("sources", help="a sources.yml for dbt")
    sources.add_argument("--key-prefix", default="", help="in front of asset keys: one/two")
    sources.add_argument("--dataset", default="analytics", help="schema of the tables")
    sources.add_argument("--select", default="", help="assets and groups, with commas between")
    sources.add_argument("--name", default="segment", help="what models call the source")
    args = parser.parse_args(argv)
    if args.command == "tables":
        sys.stdout.write(tables_page())
        return
    try:
        text = sources_yml(
            _parts(args.key_prefix, "/"), args.dataset, _parts(args.select, ","), args.name
        )
    except LookupError as error:
        parser.error(str(error.args[0]))
    sys.stdout.write(text)


def _parts(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]


if __name__ == "__main__":
    main()
