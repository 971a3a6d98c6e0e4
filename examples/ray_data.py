"""Classify a folder of photographs with Ray Data: a table of the most probable classes.

On this machine (pip install 'ray[data]'):

    .venv/bin/python examples/ray_data.py photos predictions

On a cluster, the same with folders that every node has, such as shared storage or s3:// (the
archive needs a path), from a machine of the cluster, or with `ray job submit`:

    python ray_data.py /mnt/photos /mnt/predictions --archive /mnt/resnet101.mar --address auto

Every node needs PyTorch, OpenVINO, Pillow and PyYAML (requirements.lock); the archive contains all
other code. One actor per GPU classifies, or one per node if there are no GPUs.

Each class of a photograph is a row: path, rank, class_id, label, probability. A file that cannot be
classified is one row, whose error says why; it does not end the job.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import ray
from ray.data import ActorPoolStrategy, SaveMode

# The results have these columns in every file, even if all of its photographs failed.
COLUMNS = pyarrow.schema(
    {
        "path": pyarrow.string(),
        "rank": pyarrow.int32(),
        "class_id": pyarrow.int32(),
        "label": pyarrow.string(),
        "probability": pyarrow.float64(),
        "error": pyarrow.string(),
    }
)
FORMATS = ("parquet", "json", "csv")
# Photographs that an actor gets at once; the model divides them into the batches of the archive.
PHOTOGRAPHS = 32
# The part of a CPU that a task takes which reads or writes: they wait for the disk. The actors must
# leave it, or nothing would be read.
LIGHT = 0.25


class Classifier:
    """An actor: the loaded archive."""

    def __init__(self, archive: str, top_k: int) -> None:
        sys.path.insert(0, archive)  # the code that runs the network is in its archive
        from handlers import bundle

        self.model = bundle.load(archive)
        self.model.answer_all([], top_k=top_k)  # raises if the archive does not classify
        self.top_k = top_k

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """Columns path and bytes -> COLUMNS."""
        answers = self.model.answer_all(batch["bytes"].to_pylist(), top_k=self.top_k)
        paths = batch["path"].to_pylist()
        rows = [row for pair in zip(paths, answers, strict=True) for row in rows_of(*pair)]
        return pyarrow.Table.from_pylist(rows, COLUMNS)


def rows_of(path: str, answer: Any) -> Iterator[dict[str, Any]]:
    """The rows for one file; ``answer`` is an Answer or an error of ``handlers``."""
    if isinstance(answer, Exception):
        yield {"path": path, "error": f"{type(answer).__name__}: {answer}"}
        return
    for rank, prediction in enumerate(json.loads(answer.body)["predictions"], 1):
        yield {"path": path, "rank": rank, **prediction}


def actors() -> dict[str, Any]:
    """The pool of actors for the nodes that are there now, as options of ``map_batches``."""
    found = ray.nodes()
    nodes = [node["Resources"] for node in found if node["Alive"]]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    # GPUs wait for the decoders, which need CPUs. A head node may have none to give.
    shares = [
        int(node["CPU"] // max(node.get("GPU", 0), 1))
        for node in nodes
        if "CPU" in node and ("GPU" in node or not gpus)
    ]
    cpus = max(min(shares, default=1), 1)
    return {
        "compute": ActorPoolStrategy(size=gpus or max(len(shares), 1)),
        "num_gpus": 1 if gpus else 0,
        "num_cpus": cpus - 2 * LIGHT,
        # Ray would give the network a thread per whole CPU that the actor reserves.
        "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(cpus)}},
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", help="a folder, also with sub-folders, or a URI (s3://...)")
    parser.add_argument("results", help="a new folder for the table, or a URI")
    parser.add_argument("--archive", default="model_store/resnet101.mar", metavar="MAR")
    parser.add_argument("--top-k", type=int, default=1, metavar="N", help="rows per photograph")
    parser.add_argument("--format", choices=FORMATS, default="parquet", help="json: a row per line")
    parser.add_argument("--address", help="of a Ray cluster; default: start Ray on this machine")
    arguments = parser.parse_args()
    photographs, results = arguments.photographs, arguments.results
    archive = Path(arguments.archive).resolve()
    if not zipfile.is_zipfile(archive):
        parser.error(f"{archive} is not an archive: run `make export`, or name one by --archive")
    if "://" not in photographs and not any(Path(photographs).rglob("*")):
        parser.error(f"there are no photographs in {photographs}")
    if Path(results).is_dir() and not any(Path(results).iterdir()):
        Path(results).rmdir()
    if Path(results).exists():
        parser.error(f"{results} has files: name a new folder")
    sys.path.insert(0, str(archive))  # the types of the actors' errors
    ray.init(arguments.address, include_dashboard=False)
    files = ray.data.read_binary_files(photographs, include_paths=True, num_cpus=LIGHT)
    table = files.map_batches(
        Classifier,
        fn_constructor_args=(str(archive), arguments.top_k),
        batch_size=PHOTOGRAPHS,
        batch_format="pyarrow",
        **actors(),
    )
    write = getattr(table, f"write_{arguments.format}")
    try:
        write(results, mode=SaveMode.ERROR, ray_remote_args={"num_cpus": LIGHT})
    except ray.exceptions.RayActorError as error:  # Ray has logged the traceback
        print(f"error: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted: what is in {results} is not the whole table", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
