"""The instructions of a Dockerfile: read (`words`) and carried out on an image's configuration (`changes`).

`docker commit --change` and `docker import --change` use them; nothing here runs, copies or builds anything.
"""
