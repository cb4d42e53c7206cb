"""The content store's schema, step by step. One step from the release before; runs on SQLite and Postgres."""
