"""The dlt destination, and the pipeline that loads a group into it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, cast

import dlt
from dlt.common.destination import Destination
from dlt.common.destination.exceptions import DestinationException, UnknownDestinationModule
from dlt.common.schema import Schema
from dlt.destinations.impl.filesystem.filesystem import CURRENT_VERSION
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.errors import SettingError
from analytics_assets.segment.foreign_text import root_message
from analytics_assets.segment.settings import Log
from analytics_assets.warehouse.duckdb_file import duckdb_credentials
from analytics_assets.warehouse.faults import question_error
from analytics_assets.warehouse.pinned import DESTINATION, pinned, pipeline_config, refuse
from analytics_assets.warehouse.settings import WarehouseSettings

_REPLACE: Final[dict[str, Any]] = {"replace_strategy": "insert-from-staging"}
"""A table that is loaded all anew is never seen empty, and a view on it stays."""


def dlt_destination(settings: WarehouseSettings) -> Any:
    """Return the dlt destination object, for one pipeline.

    Raises:
        SettingError: dlt has no destination of that name.
    """
    given = settings.destination_object
    if given is None:
        return _resolved_once(_new_destination(settings))
    if type(given) is dlt.destinations.postgres and find_spec("psycopg2"):
        arguments = {**given.config_params, **given.caps_params}
        return _resolved_once(_bounded_postgres(settings, **{**DESTINATION, **arguments}))
    return pinned(given)  # which several pipelines share


def _bounded_postgres(settings: WarehouseSettings, **arguments: Any) -> Any:
    from analytics_assets.warehouse.postgres import postgres_destination

    return postgres_destination(settings, **arguments)


def _resolved_once(destination: Any) -> Any:
    """Resolve the destination's settings once; dlt does so some fifty times in a load."""
    configuration, capabilities = destination.configuration, destination.capabilities
    configurations: dict[tuple[Any, ...], Any] = {}
    abilities: dict[str | None, Any] = {}

    def known_configuration(initial_config: Any, accept_partial: bool = False) -> Any:
        if initial_config is None or accept_partial:
            return configuration(initial_config, accept_partial)
        key = tuple(initial_config.get(name) for name in ("dataset_name", "default_schema_name"))
        if key not in configurations:
            configurations[key] = configuration(initial_config)
        return configurations[key]

    def known_capabilities(config: Any = None, naming: Any = None) -> Any:
        if config is not None:
            return capabilities(config, naming)
        name = naming and naming.name()
        if name not in abilities:
            abilities[name] = capabilities(naming=naming)
        return abilities[name].copy()

    destination.configuration = known_configuration
    destination.capabilities = known_capabilities
    return destination


def _new_destination(settings: WarehouseSettings) -> Any:
    if settings.is_duckdb:
        return dlt.destinations.duckdb(
            duckdb_credentials(settings.duckdb_path.absolute()),
            # without this a merge whose insert fails has already deleted the rows it replaces
            supports_transactions=True,
            **DESTINATION,
            **_REPLACE,
        )
    try:
        replace = {} if settings.destination == "filesystem" else _REPLACE
        found: Any = Destination.from_reference(settings.destination, **DESTINATION, **replace)
    except UnknownDestinationModule:
        raise SettingError(
            f"ANALYTICS_DESTINATION is {settings.destination!r}, which is no dlt destination; use"
            " duckdb, postgres, snowflake, bigquery or another that dlt lists."
        ) from None
    kind = found.destination_type.rpartition(".")[2]
    if hasattr(dlt.destinations, settings.destination) and kind != settings.destination:
        refuse(f"destination.{settings.destination}.destination_type", kind)
    if settings.destination == "postgres" and find_spec("psycopg2"):
        return _bounded_postgres(settings, **DESTINATION, **replace)
    return found


def pipeline_name(group: str) -> str:
    """Return the dlt pipeline of a group; the name keys the state in the destination."""
    return f"analytics_assets_{group}"


def new_pipeline(group: str, settings: WarehouseSettings, folder: Path | str) -> Pipeline:
    """Return a fresh pipeline in ``folder``; its state comes back from the destination.

    Two processes that share a working folder corrupt each other, so each execution has its own.
    Not by ``dlt.pipeline``, which takes from the environment what it is not told.
    """
    name = pipeline_name(group)
    config: Any = pipeline_config(name)
    nothing: Any = None  # dlt's signature does not say that these may be left out
    pipeline = Pipeline(
        name,
        str(folder),
        config.pipeline_salt,
        destination=dlt_destination(settings),
        staging=nothing,
        dataset_name=settings.dataset,
        import_schema_path=nothing,
        export_schema_path=nothing,
        dev_mode=False,
        progress=nothing,
        must_attach_to_local_pipeline=False,
        config=config,
    )
    _schemas_read_once(pipeline)
    pipeline.activate()
    return pipeline


def _schemas_read_once(pipeline: Pipeline) -> None:
    """Keep dlt from reading its schema anew whenever it is asked for it, some twenty times a load.

    The working folder is the pipeline's own: no other process writes the file.
    """
    storage: Any = pipeline.schemas
    from_file = storage.load_schema

    def load_schema(name: str) -> Schema:
        known = storage.live_schemas.get(name)
        return from_file(name) if known is None or known.is_modified else cast(Schema, known)

    storage.load_schema = load_schema


def restore(settings: WarehouseSettings, pipeline: Pipeline, log: Log) -> None:
    """Bring state and schema back from the destination, which the caller has open.

    A state that cannot be read is as good as none: what it would have told is loaded again.

    Raises:
        AnalyticsError: that failed; the text holds the destination's own reason.
    """
    try:
        pipeline.sync_destination()
    except PipelineStepFailed as error:
        if isinstance(error.exception, DestinationException):
            raise question_error(error, settings) from None
        log.warning(
            f"The state of {pipeline.pipeline_name} in the dataset {settings.dataset!r} cannot be"
            f" read ({root_message(error)}): histories are loaded again from their start."
        )


def prepare_folder(pipeline: Pipeline) -> None:
    """Let dlt load into a folder that is there already, of a destination of files.

    dlt tells by a file of its own whether it has made the folder, and fails where it would make
    one that is there.
    """
    client: Any
    with pipeline.destination_client() as client:
        if not client.config.destination_type.endswith("filesystem"):
            return
        if client.fs_client.isdir(client.dataset_path) and not client.is_storage_initialized():
            version = {"initial_version": CURRENT_VERSION, "current_version": CURRENT_VERSION}
            client.fs_client.write_text(client.init_file_path, json.dumps(version))


def local_folder(settings: WarehouseSettings, pipeline: Pipeline) -> Path | None:
    """Return the folder of a filesystem destination on this machine, ``None`` for any other."""
    if settings.destination != "filesystem":
        return None
    config: Any = pipeline.destination_client().config
    return Path(config.make_local_path(config.bucket_url)) if config.is_local_filesystem else None
