"""All SQL of `storage`: which content exists, in which repository, under which storage key.

`engine` opens and migrates the database and hands out transactions; `dialect` alone knows SQLite from Postgres;
`tables` is the schema; every other module holds the queries of one noun, as functions of a transaction. A caller
gives back the transaction it was handed and never sees SQLAlchemy. The room knows no blob store and no policy.
"""
