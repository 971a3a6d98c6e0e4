"""examples/ray_data.py: a folder of photographs, one of them damaged, becomes one table."""

from __future__ import annotations

import csv
import sys
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image

from tests import eager
from tests.examples.run import ROOT, Run, run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("servers")]  # one Ray at a time

PROGRAM = ROOT / "examples" / "ray_data.py"


def ray_data(*arguments: str | Path) -> Run:
    # Without the addresses of other clusters and the settings of the shell.
    environment = {"RAY_ADDRESS": "", "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "200"}
    return run(sys.executable, PROGRAM, *arguments, env=environment)


def test_a_folder_becomes_a_table(
    model_store: Path, photographs: dict[str, Image.Image], tmp_path: Path
) -> None:
    photos, table = tmp_path / "photos", tmp_path / "table"
    (photos / "more").mkdir(parents=True)
    files = {name: photos / f"{name}.png" for name in ("chelsea", "coffee")}
    files["astronaut"] = photos / "more" / "astronaut.png"
    for name, file in files.items():
        photographs[name].save(file)
    whole = files["coffee"].read_bytes()
    (photos / "damaged.png").write_bytes(whole[: len(whole) // 2])
    table.mkdir()  # an empty folder is as good as none
    mar = model_store / "resnet101.mar"
    ran = ray_data(photos, table, "--archive", mar, "--top-k", "2", "--format", "csv")
    assert ran.returncode == 0, ran.stderr
    rows = [row for file in table.iterdir() for row in csv.DictReader(StringIO(file.read_text()))]
    [damaged] = [row for row in rows if row["error"]]
    assert damaged["path"] == str(photos / "damaged.png")
    assert damaged["error"].startswith("BadImage: ")
    assert damaged["label"] == ""
    for name, file in files.items():
        of_file = [row for row in rows if row["path"] == str(file)]
        assert [row["rank"] for row in of_file] == ["1", "2"]
        expected = dict(eager.classified(photographs[name], 1000))
        for row in of_file:  # the archive's precision may be bfloat16
            assert float(row["probability"]) == pytest.approx(expected[row["label"]], abs=0.03)
    assert len(rows) == 7
    ran = ray_data(photos, table, "--archive", mar)
    assert ran.returncode == 2
    assert f"{table} has files: name a new folder" in ran.stderr


def test_mistakes_are_found_before_ray_starts(model_store: Path, tmp_path: Path) -> None:
    for folder, mar, message in (
        (ROOT, PROGRAM, f"{PROGRAM} is not an archive"),
        (tmp_path, model_store / "resnet101.mar", f"there are no photographs in {tmp_path}"),
    ):
        ran = ray_data(folder, tmp_path / "out", "--archive", mar)
        assert ran.returncode == 2
        assert message in ran.stderr
        assert not any(tmp_path.iterdir())
