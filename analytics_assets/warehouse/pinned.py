"""dlt's settings that would move, drop or change tables: pinned, or refused in one sentence.

dlt takes every argument that is not given from the environment, ``config.toml`` and
``secrets.toml``, so a ``DEV_MODE=true`` that is meant for something else loads into another schema.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from dlt.common.configuration import inject_section, resolve_configuration
from dlt.common.configuration.specs import BaseConfiguration
from dlt.common.configuration.specs.config_section_context import ConfigSectionContext
from dlt.common.destination.configuration import CsvFormatConfiguration, ParquetFormatConfiguration
from dlt.common.schema import Schema
from dlt.common.schema.configuration import SchemaConfiguration
from dlt.common.storages.configuration import (
    LoadStorageConfiguration,
    NormalizeStorageConfiguration,
    SchemaStorageConfiguration,
)
from dlt.normalize.configuration import ItemsNormalizerConfiguration
from dlt.pipeline.configuration import PipelineConfiguration
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.errors import SettingError
from analytics_assets.warehouse.settings import WarehouseSettings

NAMING: Final = "snake_case"
DESTINATION: Final[Mapping[str, Any]] = {
    "staging_dataset_name_layout": "%s_staging",
    "enable_dataset_name_normalization": True,
}
"""Arguments of every dlt destination that has datasets."""
FREE_OF_PIPELINE: Final = frozenset({"pipeline_salt", "progress", "runtime"})
"""Fields of dlt's pipeline configuration that change no table."""
REFUSED_OF_DESTINATION: Final = (
    "replace_strategy",
    "layout",
    "current_datetime",
    "extra_placeholders",
    "as_staging_destination",
    "csv_format",
)
"""Fields of a destination that are neither where it is nor how to get in; the default is used."""


@dataclass(frozen=True)
class Watched:
    """A part of dlt's configuration in which some fields change what is written.

    Attributes:
        spec: its specification.
        sections: where dlt looks for it; ``{group}`` is the name of a group.
        fields: those fields, and what they have to be.
    """

    spec: type[BaseConfiguration]
    sections: tuple[str, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)


_TIMES: Final = {
    "timestamp_timezone": None,
    "coerce_timestamps": None,
    "allow_truncated_timestamps": False,
}
_CSV: Final = {
    "delimiter": ",",
    "include_header": True,
    "quoting": "quote_needed",
    "encoding": "utf-8",
    "encoding_errors": "strict",
    "on_error_continue": False,
}
WATCHED: Final = (
    Watched(
        SchemaConfiguration,
        ("sources", "{group}"),
        {
            "naming": None,
            "json_normalizer": None,
            "allow_identifier_change_on_table_with_data": None,
            "use_break_path_on_normalize": None,
        },
    ),
    Watched(
        SchemaStorageConfiguration,
        ("schema",),
        {"schema_volume_path": None, "import_schema_path": None},
    ),
    Watched(NormalizeStorageConfiguration, ("normalize",), {"normalize_volume_path": None}),
    Watched(LoadStorageConfiguration, ("load",), {"load_volume_path": None}),
    Watched(
        ItemsNormalizerConfiguration,
        ("normalize", "parquet_normalizer"),
        {"add_dlt_id": False, "add_dlt_load_id": True},  # the second as in dlt_config.py
    ),
    *(
        Watched(spec, (step, "data_writer"), fields)
        for step in ("extract", "normalize")
        for spec, fields in (
            (ParquetFormatConfiguration, _TIMES),
            (CsvFormatConfiguration, _CSV),
        )
    ),
)


def pipeline_config(name: str) -> PipelineConfiguration:
    """Return the configuration of a pipeline in which nothing but runtime settings is left open.

    Args:
        name: of the pipeline.
    """
    defaults = PipelineConfiguration()
    pinned = {
        key: getattr(defaults, key)
        for key in PipelineConfiguration.get_resolvable_fields()
        if key not in FREE_OF_PIPELINE
    }
    pinned["pipeline_name"] = name
    return resolve_configuration(defaults, sections=("pipelines", name), explicit_value=pinned)


def pinned(destination: Any) -> Any:
    """Return a host's own destination; what it does not say itself is not left to chance."""
    for name in destination.spec.get_resolvable_fields().keys() & DESTINATION.keys():
        destination.config_params.setdefault(name, DESTINATION[name])
    return destination


def refuse_settings(group: str, pipeline_name: str) -> None:
    """Refuse settings of dlt that change what is written and cannot be pinned.

    Args:
        group: name of the group to load.
        pipeline_name: of its pipeline, under which dlt looks first.

    Raises:
        SettingError: one sentence that names the setting.
    """
    for watched in WATCHED:
        sections = tuple(section.format(group=group) for section in watched.sections)
        with inject_section(ConfigSectionContext(pipeline_name=pipeline_name, sections=sections)):
            found = resolve_configuration(watched.spec(), accept_partial=True)
        for name, wanted in watched.fields.items():
            if getattr(found, name) != wanted:
                refuse(name, getattr(found, name))
    naming = Schema(group).naming.name()
    if naming != NAMING:
        refuse("naming", naming)


def check_target(settings: WarehouseSettings, pipeline: Pipeline) -> None:
    """Refuse a pipeline that would write to another place than what was asked for.

    Raises:
        SettingError: one sentence that names both.
    """
    schema = Schema(pipeline.pipeline_name)
    config: Any = pipeline.destination_client().config
    told = pipeline.destination.config_params
    for name in set(REFUSED_OF_DESTINATION) - told.keys():
        found, default = getattr(config, name, None), getattr(type(config)(), name, None)
        if isinstance(found, BaseConfiguration):
            found, default = dict(found), dict(type(found)())
        if found != default:
            refuse(name, found)
    if not hasattr(config, "normalize_dataset_name"):
        return
    layout = told["staging_dataset_name_layout"]
    asked = [settings.dataset, layout.replace("%s", settings.dataset)]
    real = [config.normalize_dataset_name(schema), config.normalize_staging_dataset_name(schema)]
    if settings.is_duckdb:
        if config.credentials.read_only:
            refuse("read_only", True, "with which nothing can be loaded")
        asked.append(str(settings.duckdb_path.absolute()))
        real.append(str(Path(config.credentials.database).absolute()))
    if real != asked or pipeline.dev_mode or pipeline.refresh or pipeline.staging:
        raise SettingError(
            f"dlt would write to {', '.join(real)} where {', '.join(asked)} was asked for; remove"
            " what sets it from the environment and from dlt's config.toml and secrets.toml."
        )


def refuse(name: str, value: Any, why: str = "which would change or move the tables") -> NoReturn:
    """Refuse a setting of dlt.

    Args:
        name: as dlt calls it.
        value: what it is set to.
        why: a relative clause.

    Raises:
        SettingError: one sentence that names it, and the variables that may have set it.
    """
    ending = f"__{name.replace('.', '__')}".upper()
    variables = sorted(v for v in os.environ if f"__{v}".upper().endswith(ending))
    where = f"in {', '.join(variables)}" if variables else "in dlt's config.toml or secrets.toml"
    raise SettingError(f"dlt's setting {name!r} is {value!r}, {why}; remove it ({where}).")
