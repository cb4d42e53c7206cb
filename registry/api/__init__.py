"""HTTP and nothing else: parse what came, ask whether it is allowed, make one call, render the answer.

Start at `routes`. No rule about content lives here (those are in `ocispec` and `storage`), and no exception is turned
into a status but in `edge`.
"""
