"""What a request asks for: page sizes, cursors and times, read from its query."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone

import orjson

from analytics_assets.sandbox.moments import parse_moment, parse_month, utc_now
from analytics_assets.sandbox.replies import RefusedError, invalid
from analytics_assets.sandbox.resources import Choice
from analytics_assets.sandbox.volume import DIMENSIONS, LONGEST, VolumeQuery

DEFAULT_PAGE_SIZE = 200
_IN_BRACKETS = re.compile(r"pagination\[(\w+)\]")


def with_dots(params: Mapping[str, str]) -> dict[str, str]:
    """Give the parameters with those of pagination written with dots, however they came.

    The service takes ``pagination.count=2``, ``pagination[count]=2`` and also
    ``pagination={"count":2}``, which is what its official SDK writes.
    """
    found = {_IN_BRACKETS.sub(r"pagination.\1", name): text for name, text in params.items()}
    text = found.pop("pagination", None)
    if text is None:
        return found
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise invalid("pagination", "must be of type object")
    given = {name: str(value) for name, value in content.items() if value is not None}
    return {**found, **{f"pagination.{name}": value for name, value in given.items()}}


def read_page_size(params: Mapping[str, str], limit: int) -> int:
    """Give the number of records a request asks for, which must not be above the limit."""
    name = "pagination.count"
    text = params.get(name, str(min(DEFAULT_PAGE_SIZE, limit)))
    if not (text.isascii() and text.isdecimal()):
        raise invalid(name, "must be a number")
    count = int(text[:12])
    if count < 1:
        raise invalid(name, "must be greater than or equal to 1")
    if count > limit:
        raise invalid(name, f"must be less than or equal to {limit}")
    return count


def read_choice(params: Mapping[str, str], choice: Choice | None) -> dict[str, str]:
    """Give the values that fields of the records must have, by the parameter for it."""
    if choice is None:
        return {}
    value = params.get(choice.field, "")
    if not value and choice.required:
        raise invalid(choice.field, "is required")
    if value and value not in choice.values:
        raise invalid(choice.field, f"must be one of [{', '.join(choice.values)}]")
    return {choice.field: value} if value else {}


def read_period(params: Mapping[str, str]) -> date:
    """Give the first day of the month a request of usage asks for."""
    text = params.get("period", "")
    if not text:
        raise invalid("period", "is required")
    try:
        return parse_month(text)
    except ValueError:
        raise invalid("period", "must be in ISO 8601 date format") from None


def read_moment(params: Mapping[str, str], name: str) -> datetime | None:
    """Give the moment that a parameter names, if it is there."""
    text = params.get(name)
    if text is None:
        return None
    try:
        return parse_moment(text)
    except ValueError:
        raise invalid(name, "must be in ISO 8601 date format") from None


def read_values(params: Mapping[str, str], name: str) -> list[str]:
    """Give the values of a parameter that takes several: numbered, or one text with commas."""
    numbered = {
        int(key[len(name) + 1 :]): value
        for key, value in params.items()
        if re.fullmatch(rf"{name}\.\d{{1,4}}", key)
    }
    listed = params[name].split(",") if params.get(name) else []
    return [numbered[place] for place in sorted(numbered)] + listed


def read_volume_query(
    params: Mapping[str, str], choice: Choice | None, now: datetime
) -> VolumeQuery:
    """Give what a request for the volume of events asks for."""
    granularity = read_choice(params, choice)["granularity"]
    start, end = (_needed_moment(params, name) for name in ("startTime", "endTime"))
    # a clock that stands still does not make what has passed meanwhile the future
    if end > max(now, utc_now()) - timedelta(minutes=1):
        raise invalid("endTime", "must be at least one minute in the past")
    if start >= end:
        raise invalid("startTime", "must be before endTime")
    if end - start > LONGEST[granularity]:
        raise invalid("startTime", f"must be at most {LONGEST[granularity]} before endTime")
    group_by = read_values(params, "groupBy")
    if not set(group_by) <= set(DIMENSIONS):
        raise invalid("groupBy", f"must be one of [{', '.join(DIMENSIONS)}]")
    names = {"source": "sourceId", "eventType": "eventType", "eventName": "eventName"}
    only = {name: read_values(params, param) for name, param in names.items()}
    wanted = {name: values for name, values in only.items() if values}
    return VolumeQuery(start, end, granularity, group_by, wanted)


def _needed_moment(params: Mapping[str, str], name: str) -> datetime:
    moment = read_moment(params, name)
    if moment is None:
        raise invalid(name, "is required")
    return moment


def offset_cursor(offset: int) -> str:
    """Write the cursor of the page that starts at an offset."""
    return base64.b64encode(str(offset).encode()).decode()


def _bad_cursor() -> RefusedError:
    return invalid("pagination.cursor", "is not a valid cursor")


def read_offset(cursor: str | None, first: int = 0) -> int:
    """Give the offset a cursor stands for; without a cursor it is the start.

    ``first`` is what the cursor of the first page says.
    """
    if cursor is None:
        return 0
    try:
        offset = int(base64.b64decode(cursor, validate=True))
    except (binascii.Error, ValueError):
        raise _bad_cursor() from None
    if offset < first or offset_cursor(offset) != cursor:
        raise _bad_cursor()
    return offset - first


def audit_cursor(offset: int, floor: int, end: int) -> str:
    """Write the cursor of the audit trail, which pins the window down for the pages to come."""
    page = base64.b64encode(f"{offset}:{floor}".encode()).decode()
    moment = datetime.fromtimestamp(0, timezone.utc) + timedelta(milliseconds=end)
    until = moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    return base64.b64encode(orjson.dumps({"pageToken": page, "endTime": until})).decode()


def read_audit_cursor(cursor: str) -> tuple[int, int, int]:
    """Give the offset of a page of the audit trail, and the floor and end of its window."""
    try:
        content = orjson.loads(base64.b64decode(cursor, validate=True))
        offset, floor = base64.b64decode(content["pageToken"], validate=True).split(b":")
        until = round(parse_moment(content["endTime"]).timestamp() * 1000)
        parts = (int(offset), int(floor), until)
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise _bad_cursor() from None
    if parts[0] < 0 or audit_cursor(*parts) != cursor:
        raise _bad_cursor()
    return parts
