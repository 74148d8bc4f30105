"""What Dagster sees: assets, checks, metadata, resources and what runs by itself."""
