"""The Segment Public API: what it serves, how it is read. No Dagster, no destination."""
