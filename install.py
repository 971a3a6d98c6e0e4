"""What `make install` runs, with any Python and nothing installed: .venv from requirements.lock.

Quick when nothing changed: a stamp in .venv holds the digest of all that went into it.
"""

import hashlib
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "installed")
LOCK = os.path.join(ROOT, "requirements.lock")
CLIENT = os.path.join(ROOT, "client")
PROTO = os.path.join(CLIENT, "vision_client", "inference.proto")
STUBS = [
    os.path.join(CLIENT, "vision_client", name)
    for name in ("inference_pb2.py", "inference_pb2_grpc.py")
]
UV = "uv==0.13.9"  # installs the lock in seconds where pip takes minutes


def main():
    version = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return (
            "error: Python %s at %s is not supported: 3.11, 3.12 or 3.13 is needed\n"
            "  if you have one:  make install PYTHON=python3.12\n"
            "  on Debian:        apt install python3.11 python3.11-venv" % (version, sys.executable)
        )
    stamp = fingerprint(version)
    if os.path.isfile(STAMP) and all(map(os.path.isfile, STUBS)):
        with open(STAMP) as file:
            if file.read() == stamp:
                return None
    if sys.prefix != VENV:
        create(version)
    print("installing requirements.lock into .venv (PyTorch with CUDA: some 3 GB the first time)")
    run(PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV)
    uv = os.path.join(VENV, "bin", "uv")
    run(uv, "pip", "install", "--quiet", "--require-hashes", "--python", PYTHON, "-r", LOCK)
    print("installing client/, with gRPC stubs from its inference.proto")
    run(uv, "pip", "install", "--quiet", "--reinstall", "--no-deps", "--no-build-isolation",
        "--python", PYTHON, "--editable", CLIENT)  # fmt: skip
    with open(STAMP, "w") as file:
        file.write(stamp)
    print("installed: Python %s in .venv" % version)
    return None


def create(version):
    """A new .venv; one of another Python, or half-made, goes first."""
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
    for path in (LOCK, PROTO, os.path.join(CLIENT, "pyproject.toml")):
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
