"""Hostile code in a real decode process reaches nothing, and the same code succeeds without walls.

The decode processes of these tests run the "picture" as Python code, where others decode it.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import socket
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ts.context import RequestProcessor
from ts.service import Service

from handlers.errors import BadImage, InternalError
from handlers.pictures import pool as pools
from handlers.pictures.limits import LIMITS
from handlers.pictures.pool import DecodePool, Pixels
from handlers.pictures.sandbox import LAYERS
from handlers.torchserve import Handler
from tests.handlers.support import REST, Decoders, WriteArtefact
from tests.specs import RESNET101

pytestmark = pytest.mark.slow

_COMMAND = """
import ctypes, errno, fcntl, mmap, os, resource, socket, sys, threading
sys.path.insert(0, sys.argv[1])
from PIL import Image
from handlers.pictures import process, sandbox

parent, me = os.getppid(), os.getpid()
libc = ctypes.CDLL(None, use_errno=True)

{prepare}

def run(code, limits, *, resize):
    exec(code, globals())
    return Image.new("RGB", (8, 8))

process.decode = run
process.serve()
"""
NO_LAYERS = "sandbox.LAYERS.clear()"

# Each code ends without an exception if it has its way.
ATTACKS = {
    "socket": "socket.socket(socket.AF_INET)",
    "unix socket": "socket.socket(socket.AF_UNIX)",
    "socket pair": "socket.socketpair()",
    "another file": "open('/etc/passwd').read()",
    "its own source": "open(process.__file__).read()",
    "environment": "open('/proc/self/environ').read()",
    "folder": "os.listdir('/')",
    "whether a file exists": "os.stat('/etc/passwd')",
    "new file": "open('{folder}/new', 'w').write('x')",
    "overwriting": "open('{folder}/victim', 'w').write('x')",
    "unlink": "os.unlink('{folder}/victim')",
    "rename": "os.rename('{folder}/victim', '{folder}/new')",
    "mkdir": "os.mkdir('{folder}/new')",
    "chmod": "os.chmod('{folder}/victim', 0o777)",
    "symbolic link": "os.symlink('/', '{folder}/new')",
    "file in memory": "os.memfd_create('x')",
    "pipe": "os.pipe()",
    "dup": "os.dup(0)",
    "program": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
    "execve": """
        try:
            os.execv('/none', ['none'])
        except FileNotFoundError:
            pass
    """,
    "fork": """
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
    """,
    "thread": "threading.Thread(target=int).start()",
    "signal": "os.kill(parent, 0)",
    "signal to a thread": "assert not libc.tgkill(parent, parent, 0)",
    "ptrace": "libc.ptrace(0, 0, 0, 0)",  # PTRACE_TRACEME
    "executable memory": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "memory made executable": """
        page = mmap.mmap(-1, 4096)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        assert not libc.mprotect(ctypes.c_void_p(address), 4096, 7)
    """,
    "prctl": "assert not libc.prctl(15, b'name', 0, 0, 0)",
    "limits": "resource.setrlimit(resource.RLIMIT_CPU, resource.getrlimit(resource.RLIMIT_CPU))",
    "ioctl": "fcntl.ioctl(0, 0x541B, bytes(4))",  # FIONREAD
    "user": "os.setuid(os.getuid())",
    # Containers and kernels may refuse these too: the attack is to reach the kernel at all.
    "io_uring": "libc.syscall(425, 0, 0)",
    "pidfd": "libc.syscall(434, parent, 0)",
    "clone3": "libc.syscall(435, 0, 0)",
    "landlock": "libc.syscall(444, 0, 0, 1)",
}
if platform.machine() == "x86_64":
    ATTACKS |= {
        "memory of a process": "libc.syscall(310, me, 0, 0, 0, 0, 0)",
        "namespace": "libc.syscall(272, 0)",
        "keys": "libc.syscall(250, 0, 0, 0)",
        "bpf": "libc.syscall(321, -1, 0, 0)",
        "receiving a file": "libc.syscall(47, -1, 0, 0)",
    }
Hostile = Callable[..., DecodePool]


def run(pool: DecodePool, code: str) -> Pixels:
    return pool.decode(textwrap.dedent(code).encode(), None, time.monotonic() + 60)


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hostile]:
    """A pool of one process that runs code; ``prepare`` runs in it before the sandbox closes."""
    made: list[DecodePool] = []

    def make(prepare: str = "") -> DecodePool:
        command = _COMMAND.replace("{prepare}", textwrap.dedent(prepare))
        monkeypatch.setattr(pools, "_COMMAND", command)
        made.append(DecodePool(RESNET101, LIMITS, 1))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "victim").chmod(0o600)
    return tmp_path


def require(pool: DecodePool, *layers: str) -> None:
    """Skip the test on kernels without ``layers``."""
    run(pool, "")
    missing = set(layers) - set(pool.sandbox)
    if missing:
        pytest.skip(f"this system has no {', '.join(missing)}")


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_ends_its_process(hostile: Hostile, folder: Path, attack: str) -> None:
    pool = hostile()
    require(pool, "seccomp")
    with pytest.raises(BadImage, match="damaged"):
        run(pool, attack.replace("{folder}", str(folder)))
    assert pool.ended["violation"] == 1
    assert [path.name for path in folder.iterdir()] == ["victim"]
    assert (folder / "victim").read_text() == "untouched"
    assert (folder / "victim").stat().st_mode & 0o777 == 0o600
    run(pool, "")


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_the_attack_succeeds_without_the_sandbox(
    hostile: Hostile, folder: Path, attack: str
) -> None:
    pool = hostile(NO_LAYERS)
    assert run(pool, attack.replace("{folder}", str(folder))).size == (224, 224)
    assert pool.ended["violation"] == 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code")
def test_a_call_of_another_architecture_ends_its_process(hostile: Hostile) -> None:
    """Number 20 is getpid for 32-bit programs, but writev for 64-bit ones, which is allowed."""
    pool = hostile("""
        code = mmap.mmap(-1, 4096, prot=7)
        code.write(bytes.fromhex("b814000000 cd80 c3"))  # mov eax, 20; int 0x80; ret
        address = ctypes.addressof(ctypes.c_char.from_buffer(code))
        getpid = ctypes.CFUNCTYPE(ctypes.c_int)(address)
    """)
    require(pool, "seccomp")
    with pytest.raises(BadImage):
        run(pool, "assert getpid() == me")
    assert pool.ended["violation"] == 1


def test_a_newer_system_call_fails_so_that_libraries_do_without_it(hostile: Hostile) -> None:
    pool = hostile()
    require(pool, "seccomp")
    run(pool, "assert libc.syscall(471, 0) == -1 and ctypes.get_errno() == errno.ENOSYS")


@pytest.mark.parametrize(
    ("layer", "code"),
    [
        *(
            ("landlock", ATTACKS[name])
            for name in (
                "another file", "folder", "new file", "overwriting", "unlink", "rename", "mkdir",
                "symbolic link", "program", "signal", "signal to a thread",
            )
        ),
        ("landlock", "socket.socket().connect(('127.0.0.1', 9))"),
        *(
            ("rlimits", ATTACKS[name])
            for name in (
                "socket", "unix socket", "another file", "folder", "new file", "overwriting",
                "file in memory", "pipe",
            )
        ),
    ],
)  # fmt: skip
def test_a_layer_alone_makes_the_call_fail(
    hostile: Hostile, folder: Path, layer: str, code: str
) -> None:
    pool = hostile(f"""
        names = ("no_new_privs", "{layer}")
        sandbox.LAYERS = {{name: sandbox.LAYERS[name] for name in names}}
    """)
    require(pool, layer)
    run(
        pool,
        f"""
        try:
            {code.replace("{folder}", str(folder)).strip()}
        except (PermissionError, AssertionError):
            pass
        except OSError as error:
            assert error.errno == errno.EMFILE, error
        else:
            raise ValueError("the attack succeeded")
    """,
    )
    assert (folder / "victim").read_text() == "untouched"


def test_a_process_inherits_nothing_but_its_socket(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the worker")
    inherited, kept = os.pipe()
    os.set_inheritable(inherited, True)
    pool = hostile(NO_LAYERS)
    run(
        pool,
        """
        assert open('/proc/self/environ').read() == ''
        assert set(os.environ) <= {'LC_CTYPE'}, os.environ  # Python's own
        assert os.getcwd() == '/'
        files = [os.path.basename(os.readlink(f'/proc/self/fd/{i}')) for i in range(4)]
        assert files[0].startswith('socket:') and files[1:] == ['null', 'null', 'statm'], files
        assert os.listdir('/proc/self/fd') == ['0', '1', '2', '3', '4']  # 4 is the folder itself
    """,
    )
    os.close(inherited)
    os.close(kept)


def test_every_layer_is_reported_and_applied(hostile: Hostile, decoders: Decoders) -> None:
    pool = hostile()
    require(pool, *LAYERS)
    assert pool.sandbox == list(LAYERS)
    (process,) = decoders()
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
    )
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_other_processes_of_the_user_cannot_look_into_a_process(hostile: Hostile) -> None:
    pool = hostile("sandbox.LAYERS = {'no_new_privs': sandbox.LAYERS['no_new_privs']}")
    require(pool, "no_new_privs")
    run(pool, "assert libc.prctl(3, 0, 0, 0, 0) == 0")  # PR_GET_DUMPABLE


def test_a_system_without_layers_still_decodes_and_warns(
    hostile: Hostile, caplog: pytest.LogCaptureFixture
) -> None:
    pool = hostile("""
        sandbox._control = lambda *_: False
        sandbox._call = lambda *_: -1
    """)
    with caplog.at_level(logging.WARNING):
        pool.wait_until_ready(b"")
    assert pool.sandbox == ["rlimits"]
    assert [record.getMessage() for record in caplog.records] == [
        "this system cannot confine the decode processes by no_new_privs, landlock, seccomp "
        "(docs/running.md, Hostile uploads)"
    ]


def test_violations_are_logged_and_reported(
    hostile: Hostile,
    artefact: WriteArtefact,
    reports: socket.socket,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler, pt = Handler(), artefact()
    manifest = {"model": {"serializedFile": pt.name}}
    context = Service(pt.stem, str(pt.parent), manifest, handler.handle, None, 1).context
    context.model_yaml_config = {"handler": {"precision": "float32"}}
    context.request_processor = [RequestProcessor(REST)]
    caplog.set_level(logging.INFO)
    handler.initialize(context)
    handler.service.pool.close()
    handler.service.pool = pool = hostile()
    require(pool, "seccomp")
    for code in (b"os.fork()", b"", b"os.fork()", b"1"):
        handler.handle([{"data": code}], context)
    assert "a decode process tried what no decoder does" in caplog.text
    received = [json.loads(reports.recv(10_000)) for _ in range(5)]
    assert [report["model"] for report in received] == ["cyclegan"] * 5
    ended = [batch["ended"] for report in received for batch in report["batches"]]
    assert ended == [{"violation": 1}, {}, {"violation": 1}, {}]


@pytest.mark.parametrize("crash", ["os.abort()", "ctypes.string_at(0)"])
def test_a_crash_is_no_violation(hostile: Hostile, crash: str) -> None:
    pool = hostile()
    with pytest.raises(BadImage):
        run(pool, crash)
    assert pool.ended["violation"] == 0


def test_a_bug_is_logged_without_its_message_or_source_files(
    hostile: Hostile, caplog: pytest.LogCaptureFixture
) -> None:
    pool = hostile()
    with pytest.raises(InternalError):
        run(pool, "raise RuntimeError('the cause')")
    assert "<string>:1 <module>\nRuntimeError\n" in caplog.text  # a message may quote the picture
    assert "process.py" in caplog.text
    assert pool.ended["violation"] == 0


def test_an_exception_between_pictures_is_not_the_next_pictures_fault(hostile: Hostile) -> None:
    pool = hostile()
    run(pool, "process.ASK = None")
    run(pool, "")
    assert pool.ended["violation"] == 0


@pytest.mark.parametrize(
    "reply",
    [
        "(process.PICTURE, (224, 224), b'short')",
        "(process.PICTURE, (0, 0), b'')",
        "(process.PICTURE, (10000, 10000), bytes(300_000_000))",
        "(process.REFUSED, (0, 0), b'attempt:a name of the module errors')",
        "(process.REFUSED, (0, 0), b'Overloaded:not the decoder\\'s to say')",
        "(process.REFUSED, (0, 0), b'BadImage:' + bytes(70_000))",
        "(process.FAILED, (0, 0), bytes(70_000))",
        "(process.READY, (0, 0), b'[]')",
        "(9, (0, 0), b'')",
    ],
)
def test_a_reply_that_no_decoder_sends_ends_its_process(hostile: Hostile, reply: str) -> None:
    pool = hostile()
    run(pool, f"process._answer = lambda *_: {reply}")
    with pytest.raises(BadImage, match="damaged"):
        run(pool, "")
    assert pool.ended["violation"] == 1
    run(pool, "")
