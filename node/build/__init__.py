"""Building images: the instructions of a Dockerfile carried out by the node's own containers and file workers.

`builder` takes a request, has the file read by `node.dockerfile` and builds the stages a target needs, side by side;
`stage` carries out one stage, step by step; `copying` and `running` are the two kinds of steps that make layers;
`results` keeps what each step made under its cache key. Nothing of HTTP is known here.
"""
