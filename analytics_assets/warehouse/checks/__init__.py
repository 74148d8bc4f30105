"""Checks of what stands in the tables, derived from the rows of ``endpoints.py``.

One module for each theme; ``catalogue.py`` lists them all and ``run.py`` runs them. A check that
fails says what is wrong, where it begins and what to do. Plain results: no Dagster.
"""
