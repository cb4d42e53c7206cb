"""Pull-through: repositories named `<upstream>/…` are another registry's, kept here as they are asked for.

`service.PullThrough` is the way in, free of HTTP; `upstreams` says which names are whose, `origins` asks them (with
back-off, mirrors and address checks), `manifests` and `listings` keep documents, `fills` brings blobs: streamed to
whoever waits while they are stored. An upstream is not trusted: sizes, times and digests are checked, its headers are
not passed on, and nothing of it is a blob or manifest here before its digest is verified.
"""
