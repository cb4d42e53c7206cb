"""An assembler for classic BPF, as seccomp(2) takes it.

Programs are built back to front. Classic BPF can only jump forward, so whoever emits a jump has already emitted its
targets: all distances are known at once and no fix-up pass is needed. A conditional jump reaches 255 instructions;
a target farther away gets an unconditional jump (32-bit distance) or, for a return, a second copy of it.
"""

from __future__ import annotations

import struct

from node.linux.seccomp_load import MAX_INSTRUCTIONS

LOAD = 0x20
"""A = the 32-bit word at offset k of the packet (for seccomp: of struct seccomp_data)."""
AND = 0x54
JUMP = 0x05
JUMP_EQ = 0x15
JUMP_GT = 0x25
JUMP_GE = 0x35
RETURN = 0x06

# One less than a conditional jump's reach: the jump's other target may still need an instruction in between.
_REACH = 254

Label = int
"""Where an instruction stands, counted from the program's end; stays true while the program grows at its front."""


class ProgramTooLong(ValueError):
    """The program needs more instructions than the kernel takes."""


class Assembler:
    """Collects instructions from the last to the first. Every method gives the label of what it emitted.

    All raise ProgramTooLong as soon as it is: what asks for a million instructions does not get that much work done.
    """

    __slots__ = ("_code", "_returns")

    def __init__(self) -> None:
        self._code: list[bytes] = []
        self._returns: dict[int, Label] = {}

    def emit(self, code: int, value: int, then: Label) -> Label:
        """An instruction that goes on with `then`: a load or an operation on A."""
        if then != len(self._code):
            self._jump(then)
        return self._put(code, 0, 0, value)

    def branch(self, code: int, value: int, yes: Label, no: Label) -> Label:
        """A conditional jump (`JUMP_*`) comparing A with `value`, unsigned."""
        if yes == no:
            return yes
        yes = self._near(yes)
        no = self._near(no)
        here = len(self._code)
        return self._put(code, here - yes, here - no, value)

    def ret(self, value: int) -> Label:
        """End the program with `value`; a copy within reach is used again."""
        known = self._returns.get(value)
        if known is None or len(self._code) - known > _REACH:
            known = self._returns[value] = self._put(RETURN, 0, 0, value)
        return known

    def program(self, start: Label) -> bytes:
        """The finished sock_filter array, beginning at `start`."""
        if start != len(self._code):
            self._jump(start)
        return b"".join(reversed(self._code))

    def _near(self, target: Label) -> Label:
        return target if len(self._code) - target <= _REACH else self._jump(target)

    def _jump(self, target: Label) -> Label:
        return self._put(JUMP, 0, 0, len(self._code) - target)

    def _put(self, code: int, yes: int, no: int, value: int) -> Label:
        if len(self._code) >= MAX_INSTRUCTIONS:
            raise ProgramTooLong(f"it needs more than the {MAX_INSTRUCTIONS} instructions that the kernel takes")
        self._code.append(struct.pack("=HBBI", code, yes, no, value))
        return len(self._code)
