"""What ``./run`` executes: check every file, install, and become ``python -m serving``."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from deploy.portable import checksums
from serving.errors import ServingError
from serving.files import locked

ROOT = Path(__file__).resolve().parents[2]
HELP = """\
usage: ./run [serve] [OPTION...]       check every file, install, serve until Ctrl-C or SIGTERM
       ./run verify                    only check every file against SHA256SUMS
       ./run install                   check and install, for example as root for other users
       ./run start|stop|status [...]   serve in the background; stop it; show each model
       ./run rollout|rollback [...]    another version of a model while the server runs, and back;
                                       with --model-store, a copy of model_store/
       ./run key NAME | cert [...]     an API key for a client; a certificate
       ./run COMMAND --help            all options of a command (installs first)

often used: --port N  --grpc-port N  --metrics-port N  --host ADDRESS  --device auto|gpu|cpu
            --models NAME,NAME  --workers N  --run-dir DIR

Everything that is installed or written is in {local}:
  venv/               the Python packages{source}
  run/                logs and state of the server
  keys.txt, tls/      what `./run key` and `./run cert` write

config.properties belongs to the bundle and may not change: --set KEY=VALUE changes a line of it, as
--set api_keys={local}/keys.txt, and --config FILE takes another file.

Every start compares each file of the bundle with SHA256SUMS. A file that was changed, is missing
or was added is named, and the exit status is 1. SHA256SUMS does not prove who wrote the bundle:
check the archive's signature with ssh-keygen -Y verify before you unpack it.
PYTHON=/path/to/python ./run uses that Python; supported: {python}.
"""
SERVER = ("serve", "start", "stop", "status", "rollout", "rollback")
# Those that write into the model store.
CHANGES = ("rollout", "rollback")
OWN = ("verify", "install")
SECRETS = ("key", "cert")


def main(home: str, *arguments: str) -> int:
    """Run the command in ``arguments``; ``home`` is the folder in which the person typed it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # also as process 1
    given = list(arguments)
    if given[:1] in (["--help"], ["-h"]):
        return show_help()
    command = "serve" if not given or given[0].startswith("-") else given.pop(0)
    if command not in (*SERVER, *OWN, *SECRETS):
        return refuse(f"{command!r} is no command: ./run --help lists them", 2)
    if command in CHANGES and not names_store_or_help(given):
        return refuse(
            "the bundle's model_store may not change: start the server with a copy of it, and name "
            f"that here too: ./run {command} --model-store DIR ...",
            2,
        )
    if command in (*OWN, "serve", "start") and not is_whole(announce=command in OWN):
        return 1
    if command == "verify":
        return 0
    if (reason := wrong_platform()) is not None:
        return refuse(reason)
    state = state_folder()
    if (venv := shared_venv()) is None:
        venv = state / "venv"
        if (status := install(venv)) != 0:
            return status
    if command == "install":
        return 0
    return serve(venv, [command, *options(command, given, Path(home), state)])


def names_store_or_help(words: list[str]) -> bool:
    return any(word.startswith("--model-store") or word in ("--help", "-h") for word in words)


def serve(venv: Path, arguments: list[str]) -> int:
    """Become ``python -m serving``, so that signals reach the server itself."""
    python = venv / "bin" / "python"
    # The bundle's folder must not change, and the packages are compiled already.
    environment = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        "VISION_RUN": str(ROOT / "run"),  # messages of the server name it instead of `make`
    }
    sys.stdout.flush()
    os.execve(python, [str(python), "-m", "serving", *arguments], environment)  # noqa: S606


def show_help() -> int:
    source = ", installed without a network" if (ROOT / "wheels").is_dir() else ""
    print(HELP.format(local=state_folder(), source=source, python=about()["python"]), end="")
    return 0


def about() -> dict[str, str]:
    """What bundle.json says: name, version, commit, python, platform."""
    return dict(json.loads((ROOT / "bundle.json").read_text()))


def refuse(reason: str, status: int = 1) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return status


def is_whole(*, announce: bool) -> bool:
    """Whether every file is as SHA256SUMS says; prints those that are not."""
    found = checksums.faults(ROOT)
    for fault in found:
        refuse(fault)
    if found:
        print(f"{ROOT} is not as it was built: unpack the archive again", file=sys.stderr)
    elif announce:
        print(f"every file of {ROOT} is as {checksums.NAME} says")
    return not found


def state_folder() -> Path:
    """Where this user's state of the bundle is: in its folder or, if that is read-only, a cache."""
    if os.access(ROOT, os.W_OK):
        return ROOT / checksums.LOCAL
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    # Two bundles may have the same version.
    return Path(cache, f"{ROOT.name}-{checksums.digest(ROOT / checksums.NAME)[:12]}")


def shared_venv() -> Path | None:
    """The packages that the owner of a read-only bundle has installed in it, for any Python."""
    venv = ROOT / checksums.LOCAL / "venv"
    try:
        complete = (venv / "production").read_text() != ""  # install.py writes it last
    except OSError:
        return None
    return venv if complete and not os.access(ROOT, os.W_OK) else None


def wrong_platform() -> str | None:
    """Why the carried wheels cannot be installed on this machine, else None."""
    here = f"{platform.system()} {platform.machine()}"
    wanted = about()["platform"]
    if wanted in ("any", here):
        return None
    return f"the wheels in this bundle are for {wanted}, and this machine is {here}"


def install(venv: Path) -> int:
    """Install the bundle into ``venv`` unless it is there already; the exit status."""
    command = [sys.executable, "-B", str(ROOT / "install.py"), "--production", "--venv", str(venv)]
    try:
        with locked(venv.parent):  # another start may be installing
            if (reason := lack_of_space(venv)) is not None:
                return refuse(reason)
            # Root may install for others.
            return subprocess.run(command, check=False, umask=0o022).returncode
    except ServingError as error:
        return refuse(
            f"{error}: set XDG_CACHE_HOME to a folder with room for the packages (8 GB), or let "
            "the owner of the bundle run `./run install`"
        )


def lack_of_space(venv: Path) -> str | None:
    """Why the carried wheels cannot be unpacked into a new ``venv``, else None."""
    need = sum(wheel.stat().st_size for wheel in (ROOT / "wheels").glob("*.whl")) * 5 // 2
    free = shutil.disk_usage(venv.parent).free
    if venv.exists() or free >= need:
        return None
    return (
        f"{venv.parent} has {free / 2**30:.1f} GiB free, and the packages take "
        f"{need / 2**30:.1f}: free some, or unpack the bundle elsewhere"
    )


def options(command: str, given: list[str], home: Path, state: Path) -> list[str]:
    """The options ``given`` in the folder ``home``, with absolute paths and this bundle's own."""
    if command in SECRETS:
        own = {"--file": state / "keys.txt"} if command == "key" else {"--folder": state / "tls"}
    else:
        own = {
            "--config": ROOT / "config.properties",
            "--run-dir": state / "run",
            "--model-store": ROOT / "model_store",
        }
    rest: list[str] = []
    words = iter(given)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in (*own, "--archive"):
            rest.append(word)
        elif path := value if equals else next(words, ""):
            own[name] = home / path
    return [*(f"{name}={path}" for name, path in own.items()), *rest]


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
