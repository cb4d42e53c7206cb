"""Device rules of version 2: a small eBPF program that the kernel asks for each open and mknod. See bpf(2).

The program gets `struct bpf_cgroup_dev_ctx` (linux/bpf.h): a word with the kind of node in its lower half and the
wanted access in its upper half, then major and minor; it answers 1 for yes. It walks the rules from the last to the
first and keeps the kinds of access that nobody has decided yet, so that each is decided by the last rule matching.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from _collections_abc import Sequence

from node.linux.cgroups.devices import ANY_ACCESS, DeviceRule
from node.linux.cgroups.files import CgroupError

_BPF_CALL = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_QUERY, _PROG_BY_ID = 5, 8, 9, 16, 13
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_ALLOW_MULTI = 2
_KIND = {"b": 1, "c": 2}

# Opcodes, linux/bpf_common.h: class | source or size | operation.
_LOAD_WORD = 0x61  # dst = *(u32 *)(src + off)
_MOVE, _MOVE_K = 0xBF, 0xB7
_AND_K, _SHIFT_RIGHT_K = 0x57, 0x77
# The 32-bit comparison: the 64-bit one would extend the sign of a device number above 2^31.
_JUMP_NE_K, _JUMP_SET_K, _JUMP = 0x56, 0x45, 0x05
_EXIT = 0x95
# Registers: 0 the answer, 1 the context as given; ours are 2 the kind, 3 the undecided access, 4 major, 5 minor.
_ANSWER, _CONTEXT, _NODE, _ACCESS, _MAJOR, _MINOR = range(6)
_LOG_BYTES = 65536


def attach(folder: str, rules: Sequence[DeviceRule]) -> None:
    """Put the rules on the group, then take off what was there before; while both are on, only what both allow goes.

    Raises CgroupError. A group without a program would let root in the container open the host's disks, so there is
    no going on without it.
    """
    group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        old = _attached(group)
        loaded = _load(program(rules))
        try:
            _bpf(_PROG_ATTACH, struct.pack("=IIIII", group, loaded, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI, 0))
        finally:
            os.close(loaded)
        for number in old:
            _detach(group, number)
    finally:
        os.close(group)


def program(rules: Sequence[DeviceRule]) -> bytes:
    """The program as an array of 8-byte instructions."""
    code = [
        _instruction(_LOAD_WORD, _NODE, _CONTEXT, offset=0),
        _instruction(_MOVE, _ACCESS, _NODE),
        _instruction(_AND_K, _NODE, value=0xFFFF),
        _instruction(_SHIFT_RIGHT_K, _ACCESS, value=16),
        _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, offset=4),
        _instruction(_LOAD_WORD, _MINOR, _CONTEXT, offset=8),
    ]
    for rule in reversed(rules):
        code += _block(rule)
        if rule.is_everything():
            break  # nothing that stands before it can matter
    else:
        code += _answer(0)
    return b"".join(code)


def _block(rule: DeviceRule) -> list[bytes]:
    """Tests that jump behind the block when the rule does not concern the access, then what it decides."""
    tests = []
    if rule.kind != "a":
        tests.append((_NODE, _KIND[rule.kind]))
    if rule.major is not None:
        tests.append((_MAJOR, rule.major))
    if rule.minor is not None:
        tests.append((_MINOR, rule.minor))
    decide = _decide(rule)
    length = len(tests) + len(decide)
    code = [_instruction(_JUMP_NE_K, register, offset=length - position - 1, value=value)
            for position, (register, value) in enumerate(tests)]
    return code + decide


def _decide(rule: DeviceRule) -> list[bytes]:
    if rule.access == ANY_ACCESS:
        return _answer(1 if rule.allow else 0)
    if not rule.allow:
        return [_instruction(_JUMP_SET_K, _ACCESS, offset=1, value=rule.access), _skip(2), *_answer(0)]
    return [_instruction(_AND_K, _ACCESS, value=ANY_ACCESS & ~rule.access),
            _instruction(_JUMP_NE_K, _ACCESS, offset=2, value=0), *_answer(1)]


def _skip(count: int) -> bytes:
    return _instruction(_JUMP, 0, offset=count)


def _answer(value: int) -> list[bytes]:
    return [_instruction(_MOVE_K, _ANSWER, value=value), _instruction(_EXIT, 0)]


def _instruction(code: int, target: int, source: int = 0, *, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhI", code, source << 4 | target, offset, value)


def _load(code: bytes) -> int:
    """The kernel checks and translates the program; gives a descriptor of it."""
    instructions = ctypes.create_string_buffer(code, len(code))
    license_text = ctypes.create_string_buffer(b"Apache-2.0")
    log = ctypes.create_string_buffer(_LOG_BYTES)
    fields = (_TYPE_CGROUP_DEVICE, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(license_text))
    try:
        return _bpf(_PROG_LOAD, struct.pack("=IIQQIIQII16s", *fields, 0, 0, 0, 0, 0, b"seawall_devices"))
    except CgroupError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
        attributes = struct.pack("=IIQQIIQII16s", *fields, 1, len(log), ctypes.addressof(log), 0, 0, b"seawall_devices")
        try:
            return _bpf(_PROG_LOAD, attributes)
        except CgroupError as again:
            said = log.value.decode("ascii", "replace").strip()[-500:]
            raise CgroupError(again.errno, f"the kernel refused the device program: {said}") from None


def _attached(group: int) -> list[int]:
    """The numbers of the device programs on this very group."""
    room = (ctypes.c_uint32 * 64)()
    attributes = ctypes.create_string_buffer(
        struct.pack("=IIIIQI", group, _ATTACH_CGROUP_DEVICE, 0, 0, ctypes.addressof(room), len(room)))
    _bpf(_PROG_QUERY, attributes)
    count = struct.unpack_from("=I", attributes.raw, 24)[0]
    return list(room[:count])


def _detach(group: int, number: int) -> None:
    fd = _bpf(_PROG_BY_ID, struct.pack("=III", number, 0, 0))
    try:
        _bpf(_PROG_DETACH, struct.pack("=IIII", group, fd, _ATTACH_CGROUP_DEVICE, 0))
    finally:
        os.close(fd)


def _bpf(command: int, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    call = _BPF_CALL[os.uname().machine]
    buffer = ctypes.create_string_buffer(attributes, len(attributes)) if isinstance(attributes, bytes) else attributes
    result: int = libc.syscall(ctypes.c_long(call), ctypes.c_long(command), buffer, ctypes.c_ulong(len(buffer)))
    if result < 0:
        code = ctypes.get_errno()
        raise CgroupError(code, f"bpf({command}) for the device rules: {os.strerror(code)}")
    return result
