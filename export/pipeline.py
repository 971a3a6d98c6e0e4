"""Networks and their weights -> ``.pt``, ``.pt2``, ``.json`` and ``.mar`` in a model store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torchvision

from export import aoti, archive, openvino, program
from export.artefact import append
from export.checkpoints import Loaded, load
from export.errors import ExportError, WeightsUnavailable, reason
from export.int8.options import Int8Inputs, Int8Options
from export.networks import Network
from export.prove import Proof, prove, prove_package
from export.store import locked, size
from export.trace import Traced, trace
from export.weights import sha256_of
from handlers.metadata import Golden, Metadata

# An export is repeated if any Python file in these folders has changed.
PACKAGES = (Path(__file__).parent, archive.HANDLERS)

# progress(network's name, seconds since its start, text)
Progress = Callable[[str, float, str], None]


@dataclass(frozen=True)
class Job:
    """One network to export: the arguments of ``checkpoints.load``, and int8 if it is wanted."""

    network: Network
    weights: str = "pretrained"
    variant: str | None = None
    labels: Path | None = None
    seed: int = 0
    int8: Int8Options | None = None

    def load(self) -> Loaded:
        return load(
            self.network, self.weights, variant=self.variant, labels=self.labels, seed=self.seed
        )


@dataclass(frozen=True)
class Report:
    """The result of one job. ``worst`` is the proof's largest error, relative to eager PyTorch."""

    name: str
    weights: str
    worst: float
    pt: Path
    mar: Path
    seconds: float


class Incomplete(ExportError):
    """All reasons, one after the other; ``reports`` are of the networks that were exported."""

    def __init__(self, errors: Sequence[ExportError | OSError], reports: Sequence[Report]) -> None:
        super().__init__("\n".join(map(reason, errors)))
        self.reports = reports


def export(
    jobs: Sequence[Job],
    store: Path,
    *,
    force: bool = False,
    compiled: bool = False,
    progress: Progress = lambda _name, _seconds, _text: None,
) -> list[Report]:
    """Export each job into ``store``; a network whose inputs have not changed is kept.

    With ``compiled`` each becomes an ``.aoti.pt2`` for this machine's CPU, too.

    Each network is all or nothing: its files in the store change together, after its proof. Raises
    ExportError, which is Incomplete once the work has begun; networks that were finished before
    stay. If published weights cannot be downloaded, the other networks are exported before that.
    """
    if compiled:
        aoti.require_compiler()
    reports: list[Report] = []
    errors: list[ExportError | OSError] = []
    with locked(store):
        try:
            # All the weights first: a wrong file should be reported before minutes of work.
            networks = []
            for job in jobs:
                clock = _Clock(job.network.name, progress)
                try:
                    loaded = job.load()
                except WeightsUnavailable as error:
                    errors.append(error)
                    clock("left as it is: its published weights cannot be downloaded")
                    continue
                networks.append((loaded, job.int8.read(loaded.spec) if job.int8 else None))
                notes = f"{_label_note(job, loaded)}{_name_note(loaded)}"
                clock(f"weights {loaded.weights.name}{notes}")
            for loaded, int8 in networks:
                reports.append(_export(loaded, int8, store, force, compiled, progress))
        except (ExportError, OSError) as error:
            errors.append(error)
    if errors:
        raise Incomplete(errors, reports) from errors[-1]
    return reports


def _export(
    loaded: Loaded,
    int8: Int8Inputs | None,
    store: Path,
    force: bool,
    compiled: bool,
    progress: Progress,
) -> Report:
    name = loaded.spec.name
    clock = _Clock(name, progress)
    pt, mar = store / f"{name}.pt", store / f"{name}.mar"
    inputs = fingerprint(loaded, int8)
    receipt = None if force else _current(pt, inputs)
    if receipt:
        clock("unchanged: the .pt is kept")
        archived = archive.build(loaded.network, pt, mar)
    else:
        with tempfile.TemporaryDirectory(prefix=f".export-{name}-", dir=store) as folder:
            new = Path(folder) / pt.name
            receipt = _make(loaded, int8, new, clock) | {"inputs": inputs}
            new.with_suffix(".json").write_text(json.dumps(receipt, indent=1) + "\n")
            archived = archive.build(loaded.network, new, Path(folder) / mar.name)
            for stale in (".pt2", ".aoti.pt2"):
                pt.with_suffix(stale).unlink(missing_ok=True)
            for file in Path(folder).iterdir():
                file.replace(store / file.name)
    clock(f"archive {'built' if archived else 'unchanged'}, {size(mar)}")
    if compiled:
        package, error = aoti.build(loaded, pt.with_suffix(".pt2"))
        clock(f"{package.name} compiled and proved, worst {error:.1g}, {size(package)}")
    worst = receipt["proof"]["worst"]
    return Report(name, loaded.weights.name, worst, pt, mar, clock.seconds)


def _make(loaded: Loaded, int8: Int8Inputs | None, pt: Path, clock: _Clock) -> dict[str, Any]:
    """Trace, convert, prove, quantize; returns the content of the ``.json`` beside ``pt``."""
    spec = loaded.spec
    traced = trace(loaded, pt)
    clock(f"traced, {size(pt)}")
    for precision, figures in traced.precisions.items():
        _report_verdict(clock, precision, figures)
    side = spec.crop or spec.resize
    failure = openvino.add(traced.script, loaded.network, side, pt)
    proof = prove(loaded, traced, pt, clock)
    clock(f"proved equal to eager, worst relative error {proof.torchscript['worst']:.1g}")
    converted = proof.openvino or {"passed": False, "summary": failure}
    _report_verdict(clock, "OpenVINO", converted)
    for precision, figures in converted.get("precisions", {}).items():
        _report_verdict(clock, f"OpenVINO in {precision}", figures)
    precisions = dict(traced.precisions)
    if int8:
        # Not at the top: a production installation has no NNCF.
        from export.int8.make import add

        precisions["int8"] = add(loaded, traced, int8, pt, clock)
        _report_verdict(clock, "int8", precisions["int8"])
    golden = traced.golden
    metadata = Metadata(
        name=spec.name,
        spec=spec,
        weights=loaded.weights,
        golden=Golden(tuple(golden.input.shape), tuple(golden.output.shape)),
        precisions=precisions,
        engines={"openvino": converted},
        torch=torch.__version__,
    )
    append(pt, {"model.json": json.dumps(metadata.to_map(), indent=1).encode()})
    return {
        **metadata.to_map(),
        "proof": proof.torchscript,
        "pt": _digest(pt),
        "pt2": _package(loaded, traced, metadata, proof, pt.with_suffix(".pt2"), clock),
        "network": loaded.network.reference,
        "int8_alone": bool(int8 and int8.options.alone and precisions["int8"]["passed"]),
    }


def _package(
    loaded: Loaded, traced: Traced, metadata: Metadata, proof: Proof, pt2: Path, clock: _Clock
) -> dict[str, Any]:
    """Write and prove ``pt2``; returns its proof and digest, or ``{"failed": reason}``."""
    failed = program.save(loaded, traced, metadata, pt2)
    proof2 = {"failed": failed} if failed else prove_package(proof.cases[1:-1], pt2)
    if "failed" in proof2:
        pt2.unlink(missing_ok=True)
        clock(f"no {pt2.name}: {proof2['failed']}")
        return proof2
    clock(f"{pt2.name} proved, worst {proof2['worst']:.1g}, {size(pt2)}")
    return {"proof": proof2, **_digest(pt2)}


def _digest(file: Path) -> dict[str, Any]:
    return {"sha256": sha256_of(file), "bytes": file.stat().st_size}


def _report_verdict(clock: _Clock, name: str, figures: Mapping[str, Any]) -> None:
    clock(f"{name} {'passes' if figures['passed'] else 'fails'} the gate: {figures['summary']}")


class _Clock:
    """Progress of one network, with the seconds since its start."""

    def __init__(self, name: str, progress: Progress) -> None:
        self._name, self._progress = name, progress
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def __call__(self, text: str) -> None:
        self._progress(self._name, self.seconds, text)


def _label_note(job: Job, loaded: Loaded) -> str:
    labels = loaded.spec.labels
    if not labels:
        return ""
    if job.labels:
        return f", {len(labels)} classes from {job.labels}"
    if labels[0] == "class 0":
        variable = job.network.variable("LABELS")
        return f", {len(labels)} classes without names: {variable}=FILE gives them"
    return f", {len(labels)} classes"


def _name_note(loaded: Loaded) -> str:
    return f"; {loaded.note}" if loaded.note else ""


def fingerprint(loaded: Loaded, int8: Int8Inputs | None = None) -> str:
    """A sha256 of what decides the result: weights, specification, photographs, libraries, code."""
    parts = [
        json.dumps(dataclasses.asdict(loaded.weights), sort_keys=True),
        json.dumps(dataclasses.asdict(loaded.spec)),
        torch.__version__,
        torchvision.__version__,
        version("openvino"),
        int8.fingerprint() if int8 else "",
    ]
    for package in PACKAGES:
        sources = (path for path in archive.package_files(package) if path.suffix == ".py")
        parts.append(archive.digest_of(package, sources))
    if (own := Path(loaded.network.reference)).suffix == ".py":
        parts.append(sha256_of(own))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _current(pt: Path, inputs: str) -> dict[str, Any] | None:
    """The ``.json`` beside ``pt`` if a new export would give the same ``.pt``."""
    try:
        receipt: dict[str, Any] = json.loads(pt.with_suffix(".json").read_text())
        pt2 = receipt["pt2"]
        if (
            receipt["inputs"] == inputs
            and receipt["pt"]["sha256"] == sha256_of(pt)
            and ("failed" in pt2 or pt2["sha256"] == sha256_of(pt.with_suffix(".pt2")))
        ):
            return receipt
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None
