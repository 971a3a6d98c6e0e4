"""Compares the running server with published answers to published pictures: ``make verify``.

Published probabilities are those of float32. If the server runs a network in another precision, its
answer is compared with the tolerance of that precision, and the exported network is also run here,
in float32.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from export.errors import ExportError
from export.networks import Network, registered
from export.weights import fetch
from serving import commandline
from serving.errors import ServingError
from serving.inference import connect
from serving.management import Management
from serving.runfolder import RunFolder
from tools import reference, server
from vision_client import Client, ConnectionFailed, Prediction, VisionError

# Percentage points by which a probability may differ, by precision. Between machines, float32
# differs only by rounding. A reduced precision may swap the first two classes if their
# probabilities are within 2 percentage points (MARGIN in export/gate.py), so each may differ by 2.
# int8's gate has no limit of its own for probabilities.
TOLERANCE = {"float32": 0.05, "bfloat16": 2.0, "float16": 2.0, "int8": 5.0}
TIMEOUT_S = 120


def verify(run: RunFolder) -> int:
    """0 if the answers are the published ones, else 1; ServingError if they cannot be compared.

    Networks without published answers, or with other weights than the published ones, are skipped.
    """
    config, management = run.require_config(), Management.of(run)
    try:
        models = management.models()
        networks = [n for n in registered().values() if n.example and n.name in models]
        if not networks:
            raise ServingError(f"no answers are published for {', '.join(models)}")
        descriptions = {network.name: management.describe(network.name) for network in networks}
        others = [text for n in networks if (text := other_weights(n, descriptions[n.name]))]
        if len(others) == len(networks):
            raise ServingError("\n".join(others))
        for text in others:
            print(f"skipped: {text}")
        with connect(config, timeout=TIMEOUT_S) as client:
            # A list, not a generator: check every network, even after a difference.
            same = [
                check(client, network, descriptions[network.name], config.model_store, run.path)
                for network in networks
                if not other_weights(network, descriptions[network.name])
            ]
        return 0 if all(same) else 1
    except ExportError as error:
        raise ServingError(str(error)) from error
    except (httpx.TransportError, ConnectionFailed) as error:
        raise ServingError(f"the server of {run.path} does not answer: {error}") from error
    except VisionError as error:
        raise ServingError(str(error)) from error


def other_weights(network: Network, description: Mapping[str, Any]) -> str:
    """Why the published answer does not apply to the served weights, or an empty string."""
    assert network.example
    name, weights = network.example.checkpoint, description["weights"]
    published = network.checkpoints[name].download
    # TorchServe's management API leaves null values out.
    if weights.get("sha256") == published.sha256:
        return ""
    return (
        f"{network.name} serves the weights {weights['name']}; the published answer needs "
        f"{name}, {published.file}: make export NETWORK={network.name} WEIGHTS=pretrained, then "
        "serve again"
    )


def check(
    client: Client, network: Network, description: Mapping[str, Any], store: Path, folder: Path
) -> bool:
    """Whether the server and the ``.pt`` in ``store`` give the published answer.

    Prints what differs, and saves an output picture in ``folder``.
    """
    assert network.example
    picture, example = fetch(network.example.picture), network.example
    if example.size is None:
        pt = store / f"{network.name}.pt"
        return check_classes(client, description, picture, pt, example.expected)
    output = folder / f"{network.name}.png"
    return check_picture(client, description, picture, output, example.size)


def check_classes(
    client: Client,
    description: Mapping[str, Any],
    picture: Path,
    pt: Path,
    expected: Mapping[str, float],
) -> bool:
    """Whether a model gives ``expected`` for ``picture``, served and in float32; prints both.

    ``pt`` is the exported network, which is run here unless the server runs it in float32.
    ``expected`` is percent by label, the most probable first.
    """
    precision = description["precision"]
    data = picture.read_bytes()
    answer = client.classify(data, model=description["name"], top_k=len(expected)).predictions
    good = agrees(f"{picture.name}, served in {precision}", answer, expected, precision)
    if precision == "float32":
        return good
    weights, local = reference.classify(pt, data, top_k=len(expected))
    if weights != description["weights"]["name"]:
        raise ServingError(
            f"{pt} has the weights {weights}, the server has {description['weights']['name']}: "
            "serve again"
        )
    return agrees(f"{picture.name}, {pt.name} here in float32", local, expected, "float32") and good


def agrees(
    title: str, answer: Sequence[Prediction], expected: Mapping[str, float], precision: str
) -> bool:
    """Whether ``answer`` agrees with ``expected`` within the tolerance; prints them side by side.

    Every label's percent must be within TOLERANCE; a label missing in ``answer`` counts as 0. The
    first class must be the same; in float32, all classes in the same order.
    """
    percents = {prediction.label: 100 * prediction.probability for prediction in answer}
    ranks = len(expected) if precision == "float32" else 1
    good = True
    print(f"{title}: percent, tolerance {TOLERANCE[precision]:g}")
    print(f"  {'':<20} {'answer':>8} {'expected':>8}")
    for rank, ((label, wanted), prediction) in enumerate(
        zip(expected.items(), answer, strict=True)
    ):
        percent = percents.get(label, 0.0)
        same = abs(percent - wanted) <= TOLERANCE[precision]
        note = "" if same else "   differs"
        if rank < ranks and prediction.label != label:
            same, note = False, f"   differs: {prediction.label} has this rank"
        good = good and same
        print(f"  {label:<20} {percent:8.4f} {wanted:8.4f}{note}")
    return good


def check_picture(
    client: Client,
    description: Mapping[str, Any],
    picture: Path,
    output: Path,
    size: tuple[int, int],
) -> bool:
    """Save the translation of ``picture`` as ``output``; whether it has ``size``."""
    translation = client.translate(picture, model=description["name"])
    translation.save(output)
    width, height = translation.image().size
    good = (width, height) == size
    note = "" if good else f", not {size[0]}x{size[1]}"
    precision = description["precision"]
    print(f"{picture.name}, served in {precision}: {width}x{height} picture in {output}{note}")
    return good


def main() -> int:
    return commandline.run_beside(verify, server.parser("tools.verify", __doc__).parse_args())


if __name__ == "__main__":
    sys.exit(main())
