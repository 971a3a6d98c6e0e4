"""Permanently removes the rights that a decode process does not need.

The process applies every layer to itself. The layers need no privileges and work in containers.
bubblewrap would need user namespaces, which containers seldom allow, and the library libseccomp may
be missing, so this module calls prctl(2) and Landlock directly.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Callable

# linux/prctl.h
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
# linux/landlock.h; the numbers are the same on every architecture.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_CREATE_RULESET_VERSION = 1
# The number of file access rights by version of Landlock; version 5 and later have 16.
_LANDLOCK_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}

# linux/audit.h: AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64. Call numbers depend on it.
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
# The system calls that decoding needs, the most frequent first, with their numbers on x86_64 and
# aarch64. None of them opens a file or a socket, or starts a process or a thread.
_ALLOWED = {
    "recvfrom": (45, 207),
    "sendto": (44, 206),
    "pread64": (17, 67),  # of the open /proc/self/statm
    "setitimer": (38, 103),
    "brk": (12, 214),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "futex": (202, 98),
    "clock_gettime": (228, 113),  # where the vDSO cannot tell the time
    "gettimeofday": (96, 169),
    "sched_yield": (24, 124),
    "restart_syscall": (219, 128),
    "sysinfo": (99, 179),  # qsort of older C libraries
    "write": (1, 64),  # of messages to /dev/null
    "writev": (20, 66),
    "close": (3, 57),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
_MAPS = {"mmap": (9, 222), "mprotect": (10, 226)}  # allowed unless they ask for executable memory
_TGKILL = (234, 131)  # allowed to this process alone: abort() ends with it
# The newest call of Linux 6.19. A C library may try a newer one and do without it.
_NEWEST = 470

# linux/seccomp.h: struct seccomp_data (number, architecture, address, arguments) and the results.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _KILL, _NO_SUCH_CALL = 0x7FFF0000, 0x80000000, 0x00050000 | 38  # 38: ENOSYS
_SECCOMP_MODE_FILTER = 2
# linux/filter.h: load a word; jump if equal, greater, or a bit is set; return.
_LOAD, _EQUAL, _GREATER, _BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_PROT_EXEC = 4

# Operation, instructions to skip if true, if false, operand.
_Instruction = tuple[int, int, int, int]


class _Filter(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jt", ctypes.c_uint8),
        ("jf", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.POINTER(_Filter)))


def enter() -> list[str]:
    """Apply every layer that this system has; returns their names.

    The process keeps its memory, its open files and sockets, and its timers. With seccomp, a
    forbidden system call kills it with SIGSYS; otherwise the call fails.
    """
    return [name for name, apply in LAYERS.items() if apply()]


def _no_new_privs() -> bool:
    """Deny rights from setuid programs, and deny other processes access to this one's memory."""
    _control(_PR_SET_DUMPABLE, 0)
    return _control(_PR_SET_NO_NEW_PRIVS, 1)


def _landlock() -> bool:
    """Deny every right of versions 1 to 7 that this kernel knows: a ruleset without a rule."""
    version = _call(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    if version < 1:
        return False
    files = 2 ** _LANDLOCK_FILE_RIGHTS.get(version, 16) - 1
    ports = 0b11 if version >= 4 else 0  # TCP: bind, connect
    scope = 0b11 if version >= 6 else 0  # abstract sockets, signals
    rights = (ctypes.c_uint64 * 3)(files, ports, scope)
    ruleset = _call(_LANDLOCK_CREATE_RULESET, rights, ctypes.sizeof(rights), 0)
    if ruleset < 0:
        return False
    try:
        return _call(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _rlimits() -> bool:
    """Deny opening and writing files and, unless the user is root, starting processes (POSIX)."""
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(limit, (0, 0))
    return True


def _seccomp() -> bool:
    """Deny every system call that is not listed above."""
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        return False
    instructions = _instructions(*_ARCHITECTURES[machine], os.getpid())
    filters = (_Filter * len(instructions))(*(_Filter(*words) for words in instructions))
    program = _Program(len(instructions), filters)
    return _control(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program))


def _instructions(architecture: int, column: int, pid: int) -> list[_Instruction]:
    """The filter for the process ``pid``, with the call numbers in ``column``.

    It tests only the low word of an argument, which has all of the relevant bits.
    """
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),  # a 32-bit call
        (_LOAD, 0, 0, _NUMBER),
        (_GREATER, 0, 1, _NEWEST),
        (_RETURN, 0, 0, _NO_SUCH_CALL),
    ]
    for numbers in _ALLOWED.values():
        program += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ALLOW)]
    for numbers in _MAPS.values():
        program += [
            (_EQUAL, 0, 4, numbers[column]),
            (_LOAD, 0, 0, _ARGUMENTS + 2 * 8),
            (_BIT, 0, 1, _PROT_EXEC),
            (_RETURN, 0, 0, _KILL),
            (_RETURN, 0, 0, _ALLOW),
        ]
    program += [
        (_EQUAL, 0, 3, _TGKILL[column]),
        (_LOAD, 0, 0, _ARGUMENTS),
        (_EQUAL, 0, 1, pid),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL),
    ]
    return program


def _control(*arguments: object) -> bool:
    """Whether prctl(2) succeeds; it reads five words. False where it does not exist."""
    if sys.platform != "linux":
        return False
    status: int = ctypes.CDLL(None).prctl(*map(_word, [*arguments, 0, 0, 0, 0][:5]))
    return status == 0


def _call(*arguments: object) -> int:
    """The result of a system call of Linux; -1 if it fails, or on another system."""
    if sys.platform != "linux":
        return -1
    result: int = ctypes.CDLL(None).syscall(*map(_word, arguments))
    return result


def _word(argument: object) -> object:
    """Integers as wide as a register, as the variable arguments of a system call must be."""
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


# In the order of application: Landlock's ruleset needs a file, which rlimits denies, and seccomp
# denies the calls of all other layers.
LAYERS: dict[str, Callable[[], bool]] = {
    "no_new_privs": _no_new_privs,
    "landlock": _landlock,
    "rlimits": _rlimits,
    "seccomp": _seccomp,
}
