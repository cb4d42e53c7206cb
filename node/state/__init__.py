"""The daemon's own memory across restarts: containers, networks, volumes and settings in one SQLite file.

It must not know what the values mean: rooms above hand it names, keys and JSON. A file a noun; `tables.py` draws the
schema and `migrations/node` creates it. Start reading at `database.py`.
"""
