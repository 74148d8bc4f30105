"""Questions and their answers: one ``.sql`` file each, and the room that runs them.

A file is one SELECT in DuckDB's dialect over the tables of ``endpoints.py``, under a header that
says what it answers. It becomes an asset and a table of the same name, whatever the destination is.
"""
