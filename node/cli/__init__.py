"""`seawall`: Docker's verbs and flags for hosts without Docker's client, over the same API.

A file a verb or a small group; each is imported only when its verb is used (`main.py` holds the table), so that
`seawall --help` is quick. It talks HTTP through `node.client` and knows nothing else of the node.
"""
