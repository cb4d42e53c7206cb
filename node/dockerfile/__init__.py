"""The language of Dockerfiles, from bytes to a graph of stages; nothing here runs, copies or builds anything.

`document` takes a file apart, `typed` judges each instruction, `stages` says which stages a target needs and in which
order; `shell` reads words, `ignore` is .dockerignore, `changes` carries instructions out on an image's configuration
(`docker commit --change`).
"""
