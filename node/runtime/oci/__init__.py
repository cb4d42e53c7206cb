"""`seawall-runtime`: the OCI runtime as a command, for engines that are not ours (and for people).

Each call is a fresh interpreter that lives for milliseconds, so what is imported counts: no `re`, `enum`, `socket`,
`json`, `argparse`; a verb's module is loaded when the verb is called. What a container is between two calls stands in
one folder (`store`). The birth itself is the launcher's (`node.runtime.birth`): here is only another parent for it,
one that does not stay (`parent`).

Start reading at `main`, then `store`, `parent`, `creation`.
"""
