"""Take checkpoints to TorchScript and TorchServe archives: one .pt, .json and .mar per model."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision

from export import archive
from export.errors import ExportError
from export.models import Network, build
from export.store import add_arguments, locked, size
from export.trace import prove, trace
from export.weights import published, sha256_of
from handlers.specs import SPECS

# An export is done again when any Python file in these folders has changed.
PACKAGES = (archive.HERE, archive.HANDLERS)

EPILOG = """\
weights, for one model or for both:
  pretrained      the published checkpoint: from torch.hub's cache, else downloaded (default)
  NAME            a particular published one: {names}
  random          a seeded network, untrained: for trying the server out
  PATH            your own checkpoint: a state dict, plain or under 'state_dict'

examples:
  python -m export                                        both, published weights
  python -m export --weights random                       both, untrained
  python -m export resnet101 --resnet101 pets.pth --resnet101-labels pets.json
  python -m export cyclegan --cyclegan latest_net_G.pth --cyclegan-preprocess original

Every network is traced, loaded again in a fresh process and proved equal to eager PyTorch before
its files in the model store change. Exit status: 0 done, 1 for a reason that is printed; a model
that failed keeps the files it had.
"""


@dataclass
class Report:
    """One line of the closing table."""

    name: str
    weights: str
    worst: float
    pt: str
    mar: str
    seconds: float


def main() -> int:
    arguments = _parser().parse_args()
    # A terminated export cleans up like an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with locked(arguments.model_store):
            # All the weights first: what is missing should be known before minutes of work.
            networks = [_build(name, arguments) for name in arguments.model or SPECS]
            reports = [_export(network, arguments) for network in networks]
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was not finished is as it was", file=sys.stderr)
        return 130
    _print_table(reports)
    return 0


def _build(name: str, arguments: argparse.Namespace) -> Network:
    progress = Progress(name)
    options = vars(arguments)
    network = build(
        name,
        options[name] or arguments.weights,
        variant=options[f"{name}_preprocess"],
        labels=arguments.resnet101_labels if name == "resnet101" else None,
        seed=arguments.seed,
    )
    progress(f"weights {network.weights['name']}{_label_note(network, arguments)}")
    return network


def _export(network: Network, arguments: argparse.Namespace) -> Report:
    """One model, all or nothing: its files take their names only when all of them are good."""
    name = network.spec.name
    store: Path = arguments.model_store
    pt, mar = store / f"{name}.pt", store / f"{name}.mar"
    progress = Progress(name)
    inputs = fingerprint(network)
    metadata = _current(pt, inputs)
    if metadata and not arguments.force:
        progress("unchanged: the .pt is kept")
        archived = archive.build(name, pt, mar)
    else:
        with tempfile.TemporaryDirectory(prefix=f".export-{name}-", dir=store) as folder:
            new = Path(folder) / pt.name
            metadata = trace(network, new)
            progress(f"traced, {size(new)}")
            for precision, figures in metadata["precisions"].items():
                verdict = "passes" if figures["passed"] else "fails"
                progress(f"{precision} {verdict} the gate: {figures['summary']}")
            metadata["proof"] = prove(network, new, progress)
            worst = metadata["proof"]["worst"]
            progress(f"proved equal to eager, worst relative error {worst:.1g}")
            metadata["pt"] = {"sha256": sha256_of(new), "bytes": new.stat().st_size}
            metadata["inputs"] = inputs
            new.with_suffix(".json").write_text(json.dumps(metadata, indent=1) + "\n")
            archived = archive.build(name, new, Path(folder) / mar.name)
            for file in (new, new.with_suffix(".json"), Path(folder) / mar.name):
                file.replace(store / file.name)
    progress(f"archive {'built' if archived else 'unchanged'}, {size(mar)}")
    worst = metadata["proof"]["worst"]
    return Report(name, network.weights["name"], worst, size(pt), size(mar), progress.seconds)


class Progress:
    """Lines with the seconds since the start; intermediate steps of long work included."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def __call__(self, text: str) -> None:
        print(f"{self._name:<10} {self.seconds:6.1f} s  {text}", flush=True)


def _label_note(network: Network, arguments: argparse.Namespace) -> str:
    if network.spec.output != "classes":
        return ""
    classes = len(network.spec.labels)
    if arguments.resnet101_labels:
        return f", {classes} classes from {arguments.resnet101_labels}"
    if network.spec.labels[0] == "class 0":
        return f", {classes} classes without names: RESNET101_LABELS=FILE gives them"
    return f", ImageNet's {classes} classes"


def fingerprint(network: Network) -> str:
    """A sha256 of what decides the trace: weights, specification, libraries, all of our code."""
    parts = [
        json.dumps(network.weights, sort_keys=True),
        json.dumps(dataclasses.asdict(network.spec)),
    ]
    parts += [torch.__version__, torchvision.__version__]
    for package in PACKAGES:
        sources = (path for path in archive.package_files(package) if path.suffix == ".py")
        parts.append(archive.digest_of(package, sources))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _current(pt: Path, inputs: str) -> dict[str, Any]:
    """The stored metadata where ``pt`` is what a new export would give, else nothing."""
    try:
        metadata: dict[str, Any] = json.loads(pt.with_suffix(".json").read_text())
        if metadata["inputs"] == inputs and metadata["pt"]["sha256"] == sha256_of(pt):
            return metadata
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}


def _print_table(reports: list[Report]) -> None:
    """``error`` is the proof's worst, relative to eager PyTorch's largest output."""
    print()
    print(f"{'model':<10} {'weights':<24} {'error':>8} {'.pt':>9} {'.mar':>9} {'time':>8}")
    for r in reports:
        row = f"{r.name:<10} {r.weights:<24} {r.worst:>8.1g} {r.pt:>9} {r.mar:>9}"
        print(f"{row} {r.seconds:>6.1f} s")
    if any(r.weights == "untrained" for r in reports):
        print(
            "untrained: the answers mean nothing without WEIGHTS=pretrained or your own checkpoint"
        )


def _parser() -> argparse.ArgumentParser:
    names = ", ".join(name for model in SPECS for name in published(model))
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description=__doc__,
        epilog=EPILOG.format(names=names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument("--weights", default="pretrained", help="of every model not named below")
    for model, variants in SPECS.items():
        parser.add_argument(f"--{model}", metavar="WEIGHTS", help=f"weights of {model}; see below")
        parser.add_argument(
            f"--{model}-preprocess",
            choices=list(variants),
            help=f"what your own checkpoint was trained on (default: {next(iter(variants))})",
        )
    parser.add_argument(
        "--resnet101-labels", type=Path, metavar="FILE",
        help="class names: a JSON list, a JSON map from index to name, or one a line",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of random weights (default: 0)")
    parser.add_argument("--force", action="store_true", help="export again what has not changed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
