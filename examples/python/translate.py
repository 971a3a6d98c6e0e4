"""``translate.py MODEL.pt PHOTO OUT.png`` writes the network's picture: a horse becomes a zebra."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image
from vision import Model, Unusable, load, read, resize, to_input, to_picture


def translate(model: Model, photo: Path, size: int | None) -> Image.Image:
    """The translated ``photo``; ``size`` is its shorter side in pixels."""
    short = size or model.spec["resize"]
    if short % model.spec["multiple"]:
        raise Unusable(f"--size must be a multiple of {model.spec['multiple']}")
    picture = resize(model.spec, read(photo), short)
    return to_picture(model.spec, model(to_input(model.spec, picture)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a .pt or a .pt2")
    parser.add_argument("photo", type=Path)
    parser.add_argument("out", type=Path, help="its extension selects the format")
    parser.add_argument("--size", type=int, help="shorter side in pixels, 64 or more")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args()
    if options.size is not None and options.size < 64:
        parser.error("--size must be 64 or more")
    try:
        model = load(options.model, "picture", options.device)
        picture = translate(model, options.photo, options.size)
    except Unusable as error:
        sys.exit(f"error: {error}")
    try:
        picture.save(options.out)
    except (OSError, ValueError) as error:
        sys.exit(f"error: cannot write {options.out}: {error}")
    print(f"{model.weights} weights on {model.device}", file=sys.stderr)
    print(f"{options.out}: {picture.width}x{picture.height}")


if __name__ == "__main__":
    main()
