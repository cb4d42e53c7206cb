"""The words every other room speaks: digest, reference, media type, descriptor, manifest, image config.

Pure values and parsers: standard library only, no I/O, no clock, no policy. A value that exists is valid;
what cannot be parsed raises `InvalidArgument` naming what was wrong. Start reading at `digest`, then
`reference`, `manifest` and `graph` (the only traversal of a manifest tree in the project).
"""
