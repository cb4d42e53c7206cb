"""The Config object of a commit's body, as an image keeps it."""

from typing import Any

from node.api.types.fields import Fields

_HEALTH = ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")


def parse_config(body: Fields) -> dict[str, Any]:
    """What is set of it. Fields that an image does not have (Hostname, Tty, …) describe the container that was, and go
    with it. Raises InvalidField."""
    config: dict[str, Any] = {
        "User": body.text("User"),
        "ExposedPorts": {name: {} for name in body.keys("ExposedPorts")},
        "Env": list(body.texts("Env")),
        "Entrypoint": list(body.words("Entrypoint") or ()),
        "Cmd": list(body.words("Cmd") or ()),
        "Volumes": {name: {} for name in body.keys("Volumes")},
        "WorkingDir": body.text("WorkingDir"),
        "Labels": body.mapping("Labels"),
        "StopSignal": body.text("StopSignal"),
        "Shell": list(body.texts("Shell")),
        "OnBuild": list(body.texts("OnBuild")),
    }
    if body.has("Healthcheck"):
        check = body.object("Healthcheck")
        config["Healthcheck"] = {"Test": list(check.texts("Test")), **{name: check.number(name) for name in _HEALTH}}
    return {key: value for key, value in config.items() if value}
