"""``classify.py MODEL.pt PHOTO`` prints the most probable classes of a photograph."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vision import Model, Unusable, load, read, resize, to_input


def classify(model: Model, photo: Path, top_k: int) -> list[tuple[str, float]]:
    """The ``top_k`` most probable labels of ``photo`` with their probabilities."""
    picture = resize(model.spec, read(photo), model.spec["resize"])
    logits = model(to_input(model.spec, picture))[0]
    labels = model.spec["labels"]
    best = logits.softmax(0).topk(min(top_k, len(labels)))
    classes, probabilities = best.indices.tolist(), best.values.tolist()
    return [(labels[c], p) for c, p in zip(classes, probabilities, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a .pt or a .pt2")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args()
    if options.top_k < 1:
        parser.error("--top-k must be 1 or more")
    try:
        model = load(options.model, "classes", options.device)
        predictions = classify(model, options.photo, options.top_k)
    except Unusable as error:
        sys.exit(f"error: {error}")
    print(f"{model.weights} weights on {model.device}", file=sys.stderr)
    for rank, (label, probability) in enumerate(predictions, 1):
        print(f"{rank}. {probability:.6f} {label}")


if __name__ == "__main__":
    main()
