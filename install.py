"""Installs .venv from a lock file; needs any Python and nothing else: what `make install` runs.

`--production` installs requirements.lock, what serving needs; with `--ray`, and from then on,
requirements-ray.lock, which adds Ray. Otherwise requirements-dev.lock adds to both what the tests,
linters and tools need. Instant if nothing changed: a stamp file in .venv holds the digest of all
inputs.
"""

import hashlib
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
CLIENT = os.path.join(ROOT, "client")
PROTO = os.path.join(CLIENT, "vision_client", "inference.proto")
STUBS = [
    os.path.join(CLIENT, "vision_client", name)
    for name in ("inference_pb2.py", "inference_pb2_grpc.py")
]
DEVELOPMENT = os.path.join(ROOT, "requirements-dev.lock")
PRODUCTION = os.path.join(ROOT, "requirements.lock")
RAY = os.path.join(ROOT, "requirements-ray.lock")
# The names of the stamps tell `make` which set is installed.
STAMPS = {
    DEVELOPMENT: os.path.join(VENV, "development"),
    PRODUCTION: os.path.join(VENV, "production"),
    RAY: os.path.join(VENV, "production-ray"),
}
UV = "uv==0.13.9"  # installs the lock in seconds; pip takes minutes


def main():
    version = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return (
            "error: Python %s at %s is not supported: 3.11, 3.12 or 3.13 is needed\n"
            "  if you have one:  make install PYTHON=python3.12\n"
            "  on Debian:        apt install python3.11 python3.11-venv" % (version, sys.executable)
        )
    lock = wanted(sys.argv[1:])
    digest = fingerprint(version)
    if all(map(os.path.isfile, [STAMPS[lock], *STUBS])):
        with open(STAMPS[lock]) as file:
            if file.read() == digest:
                return None
    if sys.prefix != VENV:
        create(version)
    for stamp in STAMPS.values():
        if os.path.exists(stamp):
            os.remove(stamp)
    open(STAMPS[lock], "w").close()  # after an interruption, `make` goes on with the same set
    print("installing %s into .venv (PyTorch with CUDA: about 3 GB the first time)"
          % os.path.basename(lock))  # fmt: skip
    run(PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV)
    uv = [os.path.join(VENV, "bin", "uv"), "pip"]
    run(*uv, "sync", "--quiet", "--require-hashes", "--python", PYTHON, lock)
    print("installing client/, with gRPC stubs from its inference.proto")
    # The development lock pins the build tools; uv installs them outside .venv.
    run(*uv, "install", "--quiet", "--no-deps", "--build-constraints", DEVELOPMENT,
        "--python", PYTHON, "--editable", CLIENT)  # fmt: skip
    with open(STAMPS[lock], "w") as file:
        file.write(digest)
    print("installed: Python %s in .venv" % version)
    return None


def wanted(options):
    """The lock to install: Ray stays in a production .venv that has it."""
    if "--production" not in options:
        return DEVELOPMENT
    return RAY if "--ray" in options or os.path.exists(STAMPS[RAY]) else PRODUCTION


def create(version):
    """Replace .venv, which is missing, incomplete or of another Python."""
    print("creating .venv with Python %s" % version)
    shutil.rmtree(VENV, ignore_errors=True)
    try:
        run(sys.executable, "-m", "venv", VENV)
    except subprocess.CalledProcessError:
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit("error: this Python cannot make virtual environments; on Debian: "
                 "apt install python%d.%d-venv" % sys.version_info[:2])  # fmt: skip


def fingerprint(version):
    digest = hashlib.sha256((version + UV).encode())
    for path in (*STAMPS, PROTO, os.path.join(CLIENT, "pyproject.toml")):
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def run(*command):
    subprocess.run(command, check=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(
            "error: `%s` failed with exit status %d" % (" ".join(error.cmd[:4]), error.returncode)
        )
    except KeyboardInterrupt:
        sys.exit(130)
