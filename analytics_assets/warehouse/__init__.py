"""The dlt destination: where tables stand, and how rows get there. No Dagster."""
