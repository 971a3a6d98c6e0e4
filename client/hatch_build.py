"""Generates the gRPC stubs from vision_client/inference.proto when a wheel is built."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Stubs(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        include = [f"-I{folder}" for folder in (self.root, files("grpc_tools") / "_proto")]
        out = [f"--{kind}_out={self.root}" for kind in ("python", "pyi", "grpc_python")]
        proto = f"{self.root}/vision_client/inference.proto"
        if protoc.main(["protoc", *include, *out, proto]):
            raise RuntimeError(f"protoc failed on {proto}")
