"""Turning a layer's bytes into a directory tree, in worker processes that are shut into the tree.

`tar` (headers → entries) and `decompress` are pure; `tree` does the file work; `worker` is the program that the daemon
starts, `pool` the daemon's end of it. Everything but `pool` imports the standard library, isal, zstandard and
`node.linux` only, so that a worker starts fast and carries nothing it could leak.
"""
