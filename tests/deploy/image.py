"""deploy/docker/Dockerfile without a Docker engine: its steps in a folder, its entry in bubblewrap.

What the base image brings is this machine's: Python, the C libraries, a shell and three tools.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.debian import require

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
START_S = 300


@dataclass(frozen=True)
class Step:
    """An instruction of a Dockerfile; ``words`` is what follows it."""

    stage: str
    name: str
    words: str

    @property
    def command(self) -> list[str]:
        """The exec form, as `["run", "serve"]`."""
        return list(json.loads(self.words[self.words.index("[") :]))


def steps(text: str) -> list[Step]:
    """The instructions in ``text``, in order, each with the name of its stage."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found, stage = [], ""
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, words = line.split(maxsplit=1)
        if name == "FROM":
            stage = words.split()[-1]
        found.append(Step(stage, name, words))
    return found


STEPS = steps(DOCKERFILE.read_text())


def last(name: str, *stages: str) -> Step:
    """The instruction ``name`` that counts in the last of ``stages``, which follow each other."""
    return [step for step in STEPS if step.name == name and step.stage in stages][-1]


def base_python() -> Path:
    """The interpreter of the tests, or one of its version, that other users can execute."""
    here = Path(sys.executable).resolve()
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for python in (here, Path("/usr/bin", version), Path("/usr/local/bin", version)):
        if python.exists() and all(parent.stat().st_mode & 0o001 for parent in python.parents):
            return python
    pytest.skip(f"no {version} that another user can execute: apt install {version}-venv")


def install(context: Path, root: Path) -> None:
    """Execute the stage ``installed`` below ``root``; ``context`` has what its ADD names."""
    for place in ("opt", "tmp"):
        (root / place).mkdir()
    for step in STEPS:
        if step.stage != "installed":
            continue
        if step.name == "ADD":
            source, target = step.words.split()
            with tarfile.open(context / source) as tar:
                tar.extractall(root / target[1:], filter="data")
        elif step.name == "COPY":
            source, target = step.words.split()
            (root / target[1:]).write_bytes((ROOT / source).read_bytes())
        elif step.name == "RUN":
            command = re.sub(r"(?<![\w.])/(opt|tmp)/", rf"{root}/\1/", step.words)
            environment = {**os.environ, "PYTHON": str(base_python())}
            done = subprocess.run(
                ["/bin/sh", "-ec", command], env=environment, capture_output=True, text=True,
                timeout=300, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Container:
    """The entry point in its sandbox; ``inside`` is its process id on this machine."""

    process: subprocess.Popen[bytes]
    inside: int
    log: Path

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run ``command`` in the container, as `docker exec` does."""
        user = STEPS_USER.split(":")
        enter = ["nsenter", "--target", str(self.inside), "--user", "--mount", "--net", "--pid"]
        enter += ["--setuid", user[0], "--setgid", user[1]]
        return subprocess.run(
            [*enter, *command], env=PATHS, capture_output=True, text=True, timeout=60, check=False
        )

    def beside(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run ``command`` of this machine in the network of the container."""
        enter = ["nsenter", "--target", str(self.inside), "--net"]
        return subprocess.run(
            [*enter, *map(str, command)], capture_output=True, text=True, timeout=60, check=False
        )


STEPS_USER = last("USER", "server", "cpu").words
PATHS = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def base_image(python: Path) -> list[str]:
    """What stands for the base image: the options of bwrap that show it, read-only."""
    library = python.parents[1] / "lib" / python.name
    tools = ("/bin/sh", "/usr/bin/sed", "/usr/bin/dirname", "/usr/bin/env")
    shown = [python, library, *map(Path, tools), *Path("/").glob("lib*64*"), Path("/lib")]
    shown += [Path("/usr/lib", os.uname().machine + "-linux-gnu"), Path("/etc/ld.so.cache")]
    options = []
    for path in shown:
        options += ["--ro-bind", str(path.resolve()), str(path)]
    return [*options, "--symlink", str(python), "/usr/local/bin/python3"]


@contextlib.contextmanager
def container(root: Path, *arguments: str) -> Iterator[Container]:
    """The stage ``cpu`` of ``root``, once its health check passes.

    As in compose.yaml: another user, a read-only root, a volume, a tmpfs, no capabilities; and
    only the loopback network. ``arguments`` follow those of the image.
    """
    require("bubblewrap")
    state, log = root / "state", root / "container.log"
    state.mkdir(mode=0o700)
    user, group = STEPS_USER.split(":")
    os.chown(state, int(user), int(group))
    passwd = root / "passwd"  # of the RUN of the stage `server`
    passwd.write_text(f"vision:x:{user}:{group}::/var/lib/vision:/usr/sbin/nologin\n")
    copies = [step.words.split()[1:] for step in STEPS
              if step.name == "COPY" and step.stage == "server"]  # fmt: skip
    options = base_image(base_python())
    for source, target in copies:
        options += ["--ro-bind", f"{root}{source}", target]
    options += ["--ro-bind", str(passwd), "/etc/passwd", "--proc", "/proc", "--dev", "/dev"]
    options += ["--perms", "1777", "--tmpfs", "/tmp", "--bind", str(state), "/var/lib/vision"]
    options += ["--remount-ro", "/", "--chdir", last("WORKDIR", "server").words]
    options += ["--unshare-all", "--die-with-parent", "--as-pid-1", "--clearenv"]
    options += ["--setenv", "PATH", PATHS["PATH"], "--setenv", "HOME", "/var/lib/vision"]
    entry = [*last("ENTRYPOINT", "server").command, *last("CMD", "cpu").command, *arguments]
    drop = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--no-new-privs"]
    reader, writer = os.pipe()
    command = [*drop, "bwrap", "--info-fd", str(writer), *options, "--", *entry]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            pass_fds=[writer],
        )  # fmt: skip
    os.close(writer)
    try:
        told = b""
        while b"}" not in told:  # {"child-pid": ...}, in several writes
            assert select.select([reader], [], [], 30)[0], log.read_text()
            told += os.read(reader, 4096)
            assert told, log.read_text()
        running = Container(process, int(json.loads(told)["child-pid"]), log)
        wait_until_healthy(running)
        yield running
    finally:
        os.close(reader)
        process.kill()
        process.wait(30)


def is_healthy(running: Container) -> bool:
    return running.execute(*last("HEALTHCHECK", "server").command).returncode == 0


def wait_until_healthy(running: Container) -> None:
    deadline = time.monotonic() + START_S
    while not is_healthy(running):
        assert running.process.poll() is None, running.log.read_text()
        assert time.monotonic() < deadline, running.log.read_text()
        time.sleep(0.5)


def end(process: subprocess.Popen[bytes], inside: int, signal: int) -> int:
    """Send ``signal`` to the process ``inside``; the exit status of ``process``."""
    os.kill(inside, signal)
    return process.wait(60)


def without_route(user: int, command: Sequence[str], home: Path) -> list[str]:
    """``command`` as another user, with loopback alone as network and nothing of our shell."""
    drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]
    clean = ["env", "-i", f"HOME={home}", "PATH=/usr/bin:/bin", f"PYTHON={base_python()}"]
    return ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh",
            *drop, *clean, *command]  # fmt: skip
