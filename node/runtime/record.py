"""Frozen value classes for processes that must stay small.

`dataclasses` loads `inspect`, `ast`, `dis` and `tokenize`: 1.6 MB in every launcher and monitor. A type checker reads
these classes as dataclasses all the same.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar, dataclass_transform

    T = TypeVar("T")

    @dataclass_transform(frozen_default=True)
    def record(cls: type[T]) -> type[T]: ...
else:

    def record(cls):
        """Make a class of annotated fields a frozen, slotted value; what is assigned to a field is its default."""
        fields = tuple(cls.__annotations__)
        defaults = {name: cls.__dict__[name] for name in fields if name in cls.__dict__}
        body = {key: value for key, value in cls.__dict__.items()
                if key not in defaults and key not in ("__dict__", "__weakref__")}

        def init(self, *args, **named):
            values = {**defaults, **dict(zip(fields, args, strict=False)), **named}
            if len(args) > len(fields) or values.keys() != set(fields):
                raise TypeError(f"{cls.__name__} takes {', '.join(fields)}")
            for name in fields:
                object.__setattr__(self, name, values[name])

        def refuse(_self, name, _value):
            raise AttributeError(f"{cls.__name__}.{name} is frozen")

        def equal(self, other):
            return type(other) is type(self) and all(getattr(self, n) == getattr(other, n) for n in fields)

        def show(self):
            return f"{cls.__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in fields)})"

        body.update(__slots__=fields, __init__=init, __setattr__=refuse, __eq__=equal, __repr__=show, __hash__=None)
        return type(cls.__name__, cls.__bases__, body)
