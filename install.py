"""Installs .venv from a lock file; needs any Python and nothing else: what `make install` runs.

`--production` installs requirements.lock, what serving needs; with `--ray`, and from then on,
requirements-ray.lock, which adds Ray. Otherwise requirements-dev.lock adds to both what the tests,
linters and tools need. `--venv DIR` installs into another folder. Instant if nothing changed: a
stamp file in .venv holds the digest of all inputs.

A portable bundle has the client as a wheel, which is installed without building it. If the bundle
has a folder `wheels`, everything comes from there, without a network.
"""

import glob
import hashlib
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
CLIENT = os.path.join(ROOT, "client")
PROTO = os.path.join(CLIENT, "vision_client", "inference.proto")
STUBS = [
    os.path.join(CLIENT, "vision_client", name)
    for name in ("inference_pb2.py", "inference_pb2_grpc.py")
]
WHEELS = os.path.join(ROOT, "wheels")
DEVELOPMENT = os.path.join(ROOT, "requirements-dev.lock")
PRODUCTION = os.path.join(ROOT, "requirements.lock")
RAY = os.path.join(ROOT, "requirements-ray.lock")
# The names of the stamps in .venv tell `make` which set is installed.
STAMPS = {DEVELOPMENT: "development", PRODUCTION: "production", RAY: "production-ray"}
UV = "uv==0.13.9"  # installs the lock in seconds; pip takes minutes


def main():
    version = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return (
            "error: Python %s at %s is not supported: 3.11, 3.12 or 3.13 is needed\n"
            "  if you have one:  make install PYTHON=python3.12\n"
            "  on Debian:        apt install python3.11 python3.11-venv" % (version, sys.executable)
        )
    options = sys.argv[1:]
    venv = os.path.join(ROOT, ".venv")
    if "--venv" in options:
        venv = os.path.abspath(options[options.index("--venv") + 1])
    stamps = {lock: os.path.join(venv, name) for lock, name in STAMPS.items()}
    client = glob.glob(os.path.join(CLIENT, "*.whl"))  # in a bundle
    lock = wanted(options, stamps)
    digest = fingerprint(version, client)
    if all(map(os.path.isfile, [stamps[lock]] + ([] if client else STUBS))):
        with open(stamps[lock]) as file:
            if file.read() == digest:
                return None
    if sys.prefix != venv:
        create(venv, version)
    for stamp in stamps.values():
        if os.path.exists(stamp):
            os.remove(stamp)
    open(stamps[lock], "w").close()  # after an interruption, `make` goes on with the same set
    install(venv, lock, client)
    with open(stamps[lock], "w") as file:
        file.write(digest)
    print("installed: Python %s in %s" % (version, shown(venv)))
    return None


def install(venv, lock, client):
    """Install ``lock`` and the client, a wheel or, if ``client`` is empty, its source."""
    cache, offline, source = os.path.join(venv, "cache"), [], "PyTorch with CUDA: about 3 GB"
    installer = UV
    if os.path.isdir(WHEELS):
        # Beside the wheels uv's cache would take as much disk again, in the user's home.
        offline = ["--offline", "--find-links", WHEELS, "--cache-dir", cache]
        source = "from the wheels of this bundle"
        installer = glob.glob(os.path.join(WHEELS, "uv-*.whl"))[0]
    print("installing %s into %s (%s)" % (os.path.basename(lock), shown(venv), source))
    sys.stdout.flush()
    python = os.path.join(venv, "bin", "python")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", installer)
    uv = [os.path.join(venv, "bin", "uv"), "pip"]
    # A bundle's folder may be read-only when it serves.
    compiled = ["--compile-bytecode"] if client else []
    run(*uv, "sync", "--quiet", "--require-hashes", "--python", python, *offline, *compiled, lock)
    if client:
        run(*uv, "install", "--quiet", "--no-deps", "--python", python, *offline, *compiled,
            *client)  # fmt: skip
    else:
        print("installing client/, with gRPC stubs from its inference.proto")
        # The development lock pins the build tools; uv installs them outside .venv.
        run(*uv, "install", "--quiet", "--no-deps", "--build-constraints", DEVELOPMENT,
            "--python", python, "--editable", CLIENT)  # fmt: skip
    shutil.rmtree(cache, ignore_errors=True)


def shown(venv):
    """``venv`` as a person calls it."""
    return ".venv" if os.path.dirname(venv) == ROOT else venv


def wanted(options, stamps):
    """The lock to install: Ray stays in a production .venv that has it."""
    if "--production" not in options:
        return DEVELOPMENT
    return RAY if "--ray" in options or os.path.exists(stamps[RAY]) else PRODUCTION


def create(venv, version):
    """Replace ``venv``, which is missing, incomplete or of another Python."""
    print("creating %s with Python %s" % (shown(venv), version))
    sys.stdout.flush()
    shutil.rmtree(venv, ignore_errors=True)
    try:
        run(sys.executable, "-m", "venv", venv)
    except subprocess.CalledProcessError:
        shutil.rmtree(venv, ignore_errors=True)
        sys.exit("error: this Python cannot make virtual environments; on Debian: "
                 "apt install python%d.%d-venv" % sys.version_info[:2])  # fmt: skip


def fingerprint(version, client):
    digest = hashlib.sha256((version + UV).encode())
    inputs = client or [PROTO, os.path.join(CLIENT, "pyproject.toml")]
    for path in [*filter(os.path.exists, STAMPS), *inputs]:
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
