"""Trains a ResNet-101 for a few minutes, to check reduced precisions on trained weights.

The classes are 16 photographs of scikit-image; the examples are random crops of them. Writes to
run/trained

resnet101.pth   a checkpoint: make export NETWORK=resnet101 WEIGHTS=run/trained/resnet101.pth
labels.txt      its class names: LABELS=run/trained/labels.txt
photos/         a folder of photographs per class, other crops: INT8=run/trained/photos

and prints the gate of each precision beside what the precision does to half of the photographs. The
exit status is 1 if a precision that passed its gate gives less than 98% of them the same class.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from export.checkpoints import load
from export.int8.photos import read
from export.networks import registered
from tools import bundle
from tools.trained import gates
from tools.trained.train import LABELS, STEPS, train, write_photographs

PHOTOS_PER_CLASS = 20


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.trained",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, default=bundle.ROOT / "run" / "trained")
    parser.add_argument("--steps", type=int, default=STEPS, help="batches of 16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="the weights of an earlier run")
    arguments = parser.parse_args()
    network, folder = registered()["resnet101"], arguments.folder
    checkpoint, labels, photos = (folder / n for n in ("resnet101.pth", "labels.txt", "photos"))
    if not arguments.keep:
        write_photographs(photos, PHOTOS_PER_CLASS, arguments.seed + 1)
        labels.write_text("\n".join(LABELS) + "\n")
        trained = train(network.spec("v1", LABELS), arguments.steps, arguments.seed)
        torch.save(trained.state_dict(), checkpoint)
    loaded = load(network, str(checkpoint), variant="v1", labels=labels)
    rows = list(gates.rows(loaded, read(photos, loaded.spec)))
    print(gates.table(rows))
    for row in rows:
        if row.is_wrong:
            print(f"FAULT: {row.precision} passed its gate: {row.gate['summary']}")
    return 1 if any(row.is_wrong for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
