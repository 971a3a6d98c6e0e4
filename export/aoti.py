"""``.pt2`` -> ``.aoti.pt2``: compiled by AOTInductor for the CPU of this machine, float32.

Applications in C++ and Python load it without a compiler. Its metadata are the extra files of the
``.pt2``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from export import child
from export.checkpoints import Loaded
from export.errors import ExportError
from export.prove import eager_cases, prove_package

TIMEOUT_S = 1800
COMPILE = Path(__file__).with_name("compile_aoti.py")


def require_compiler() -> None:
    """Raise ExportError, with the remedy, if no C++ compiler is here."""
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        raise ExportError(
            f"AOTI=1 needs a C++ compiler, and there is no {compiler}: install it "
            "(apt-get install g++), or name another, CXX=clang++"
        )


def build(loaded: Loaded, pt2: Path) -> tuple[Path, float]:
    """Compile and prove the package beside ``pt2``; returns its path and the worst error.

    ExportError if there is no ``pt2``, and if it does not compile or differs from eager PyTorch.
    """
    path = pt2.with_suffix(".aoti.pt2")
    if not pt2.is_file():
        raise ExportError(f"no {path.name}: {loaded.spec.name} has no {pt2.name} to compile")
    with tempfile.TemporaryDirectory(prefix=".export-aoti-", dir=pt2.parent) as folder:
        new = Path(folder) / path.name
        _run_compiler(pt2, new)
        proof = prove_package(eager_cases(loaded), new)
        if "failed" in proof:
            raise ExportError(f"no {path.name}: it {proof['failed']}")
        new.replace(path)
    return path, proof["worst"]


def _run_compiler(pt2: Path, path: Path) -> None:
    """``compile_aoti.py`` in a process of its own: compilers keep threads, caches, settings."""
    scratch = path.parent.resolve()
    run = child.run(
        COMPILE,
        pt2,
        path,
        scratch=scratch,
        timeout_s=TIMEOUT_S,
        late=f"no {path.name}: it took more than {TIMEOUT_S} s to compile",
        TORCHINDUCTOR_CACHE_DIR=str(scratch),
    )
    if run.returncode:
        why = run.stdout.strip() or child.last_line(run)
        raise ExportError(f"no {path.name}: it does not compile: {why}")
