"""Compile a ``.pt2`` with AOTInductor, with PyTorch alone, in a fresh process.

``python -I compile_aoti.py NAME.pt2 NAME.aoti.pt2``. If it fails, it prints why and exits with 1.
"""

from __future__ import annotations

import sys
from typing import Any

import torch


def main(pt2: str, path: str) -> None:
    files: dict[str, Any] = {"model.json": ""}
    try:
        program = torch.export.load(pt2, extra_files=files)
        torch._inductor.aoti_compile_and_package(
            program, package_path=path, inductor_configs={"aot_inductor.metadata": files}
        )
    except Exception as error:  # noqa: BLE001  # the compiler may raise anything
        print(next(iter(str(error).strip().splitlines()), type(error).__name__))
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
