"""What users read of the tables, written from ``endpoints.py``: documents, and sources for dbt."""
