"""Networks are found by name or by file, and the published files they name are pinned."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from torchvision import models

from export import weights
from export.errors import ExportError
from export.networks import Download, Network, find, registered, torchvision

# As published: torchvision's file names begin with the same digits; the others are the git-lfs
# objects of the book's repository.
DIGESTS = {
    "resnet101-63fe2227.pth": "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
    "resnet101-cd907fc2.pth": "cd907fc2a0de2292b2ba2b27d2216bc672d84632d1cf20058d01c0c03b5e020e",
    "horse2zebra_0.4.0.pth": "043afb9bdb059f8423ba772f9b01b5d72dc63f8221989e7750807df6c55d56b4",
    "bobby.jpg": "71d4d4ae4f00f5febb1f178153673bc456d15f305f6d58517679340dcfbf5914",
    "horse.jpg": "478b2b255c74ad18547b6df158a08703d7c5961e89a5c46f2685f820122fff66",
}
NETWORKS = registered()
CHECKPOINTS = [
    checkpoint for network in NETWORKS.values() for checkpoint in network.checkpoints.values()
]
DOWNLOADS = [checkpoint.download for checkpoint in CHECKPOINTS] + [
    network.example.picture for network in NETWORKS.values() if network.example
]


def test_digests_are_the_published_ones() -> None:
    assert {download.file: download.sha256 for download in DOWNLOADS} == DIGESTS


@pytest.mark.parametrize("download", DOWNLOADS, ids=lambda download: download.file)
def test_downloads_come_from_their_file_over_https(download: Download) -> None:
    assert urlsplit(download.url).scheme == "https"
    assert urlsplit(download.url).path.endswith("/" + download.file)


def test_checkpoints_name_source_and_licence() -> None:
    assert all(checkpoint.source and checkpoint.licence for checkpoint in CHECKPOINTS)


@pytest.mark.parametrize(
    ("name", "checkpoints"),
    [("resnet101", ["IMAGENET1K_V1", "IMAGENET1K_V2"]), ("cyclegan", ["horse2zebra"])],
)
def test_default_comes_first(name: str, checkpoints: list[str]) -> None:
    assert list(NETWORKS[name].checkpoints) == checkpoints


def test_size_of_the_book_s_generator() -> None:
    assert NETWORKS["cyclegan"].checkpoints["horse2zebra"].download.bytes == 45_519_250


@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_has_its_own_file(name: str) -> None:
    assert (Path(torchvision.__file__).with_name(f"{name}.py")).is_file()
    assert find(name) is NETWORKS[name]


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"TORCH_HOME": "/a"}, "/a/hub/checkpoints"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/torch/hub/checkpoints"),
        ({"TORCH_HOME": "/a", "XDG_CACHE_HOME": "/b"}, "/a/hub/checkpoints"),
        ({"HOME": "/c"}, "/c/.cache/torch/hub/checkpoints"),
    ],
)
def test_cache_is_where_torch_hub_has_it(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch import hub

    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert weights.cache_folder() == Path(folder) == Path(hub.get_dir()) / "checkpoints"


@pytest.mark.parametrize("name", torchvision.names())
def test_every_classifier_of_torchvision_can_be_found(name: str) -> None:
    """Preprocessing, classes and digests are torchvision's."""
    network = torchvision.network(name)
    best = models.get_model_weights(name).DEFAULT
    transforms = best.transforms()
    spec = network.spec()
    assert (spec.resize, spec.crop) == (transforms.resize_size[0], transforms.crop_size[0])
    assert (list(spec.mean), list(spec.std)) == (list(transforms.mean), list(transforms.std))
    assert spec.interpolation == transforms.interpolation.value
    assert list(spec.labels) == best.meta["categories"]
    for checkpoint_name, checkpoint in network.checkpoints.items():
        assert re.fullmatch("[0-9a-f]{8,}", checkpoint.download.sha256)
        entry = models.get_model_weights(name)[checkpoint_name]
        assert checkpoint.download.max_bytes >= max(2**30, entry.meta["_file_size"] * 2**20)
        assert checkpoint.download.max_bytes < 1.1 * max(2**30, entry.meta["_file_size"] * 2**20)


def test_fixed_size_networks_are_exported_at_their_size() -> None:
    network = find("vit_b_16")
    assert network.input_sizes(network.spec()).golden == (1, 224, 224)
    assert network.input_sizes(network.spec("imagenet1k_swag_e2e_v1")).golden == (1, 384, 384)


@pytest.mark.parametrize("reference", ["resnet10", "horse", "", "no/such/mine.py", "mine.py"])
def test_unknown_reference(reference: str) -> None:
    with pytest.raises(ExportError, match=r"no network is called|there is no such file"):
        find(reference)


def test_close_names_are_suggested() -> None:
    with pytest.raises(ExportError, match=r"did you mean .*resnet101"):
        find("resnet1o1")


GOOD = """
from export.networks import Network, Preprocessing, Serving
NETWORK = Network(
    name="mine", task="classify", build=lambda spec: None, head="fc", labels=("a", "b"),
    variants={"plain": Preprocessing(resize=64, crop=64)},
)
"""

PICTURE = """
from export.networks import Network, Preprocessing, Serving, Sizes
NETWORK = Network(
    name="mine", task="translate", build=lambda spec: None, sizes=Sizes(), scale=2,
    variants={"plain": Preprocessing(resize=128, multiple=4)},
)
"""


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(text)
    return path


def test_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    network = find("mine.py")
    assert isinstance(network, Network)
    assert network.reference == str(path)
    assert network.spec().labels == ("a", "b")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "defines no NETWORK"),
        ("NETWORK = 5", "a NETWORK of type int"),
        ("def", "SyntaxError"),
        ("import no_such_module", "no_such_module"),
        ("raise RuntimeError", "RuntimeError: no message"),
        (GOOD.replace('"mine"', '"my-net"'), "lower-case letters, digits and _"),
        (GOOD.replace('"mine"', '"../mine"'), "lower-case letters, digits and _"),
        (GOOD.replace('"mine"', "5"), "lower-case letters, digits and _"),
        (GOOD.replace('"classify"', '"no such"'), "not a module of handlers/tasks"),
        (GOOD.replace("lambda spec: None", "5"), "build must be a function"),
        (GOOD.replace('labels=("a", "b"),', ""), "needs labels"),
        (GOOD.replace('{"plain": Preprocessing(resize=64, crop=64)}', "{}"), "variants"),
        (GOOD.replace('{"plain": Preprocessing(resize=64, crop=64)}', '{"plain": 5}'), "variants"),
        (GOOD.replace(", crop=64", ""), "sizes"),
        (GOOD.replace("crop=64", "crop=0"), "crop must be a whole number above 0, not 0"),
        (GOOD.replace("crop=64", "crop=64, interpolation='nearest'"), "bilinear or bicubic"),
        (GOOD.replace("crop=64", "crop=64, mean=(0, 0)"), "three values"),
        (GOOD.replace("variants", "sizes=64, variants"), "sizes must be a Sizes"),
        (GOOD.replace("variants", "serving={}, variants"), "serving must be a Serving"),
        (GOOD.replace("variants", "variant"), "TypeError"),
        (GOOD.replace("variants", "scale=0, variants"), "scale"),
        (GOOD.replace("variants", "output_range=(1, 0), variants"), "output_range"),
        (GOOD.replace("variants", "serving=Serving(batch_size=0), variants"), "batch_size"),
        (GOOD.replace("variants", "serving=Serving(precision='int4'), variants"), "precision"),
        (GOOD.replace("variants", "serving=Serving(limits={'mega': 5}), variants"), "mega"),
        (GOOD.replace("variants", "serving=Serving(limits=[]), variants"), "limits must be a map"),
        (GOOD.replace("variants", "serving=Serving(workers=None), variants"), "workers must be"),
        (GOOD.replace("variants", "serving=Serving(ray={'gpus': 1}), variants"), "no 'gpus'"),
        (GOOD.replace("variants", "serving=Serving(ray={'num_cpus': '2'}), variants"), "not '2'"),
        (GOOD.replace("variants", "serving=None, variants"), "serving must be a Serving"),
        (GOOD.replace('("a", "b")', '("a",)'), "needs labels, at least two"),
        (GOOD.replace("crop=64", "crop=1500"), "1500x1500 pixels; the limit network_pixels"),
        (PICTURE.replace("resize=128", "resize=48"), "'plain': resize must be 64 to 1024, not 48"),
        (PICTURE.replace("resize=128", "resize=1200").replace(" scale=2,", ""), "not 1200"),
        (PICTURE.replace("multiple=4", "multiple=24"), "multiple must divide 64, not be 24"),
        (PICTURE.replace("resize=128", "resize=130"), "resize 130 is not a multiple of 4"),
        (PICTURE.replace("scale=2", "scale=12"), "1536x1536 pixels; the limit network_pixels"),
        (GOOD.replace('"mine"', '"cyclegan"'), "the bundle has a network called cyclegan"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_faults_of_an_own_file(text: str, reason: str, tmp_path: Path) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(ExportError, match=reason) as refusal:
        find(str(path))
    assert str(path) in str(refusal.value)


def test_a_limit_of_the_network_s_own(tmp_path: Path) -> None:
    serving = "serving=Serving(limits={'network_pixels': 3_000_000}), variants"
    larger = GOOD.replace("crop=64", "crop=1500").replace("variants", serving)
    assert find(str(_write(tmp_path, larger))).spec().crop == 1500


def test_own_file_imports_its_siblings(tmp_path: Path) -> None:
    (tmp_path / "sibling_of_mine.py").write_text("LABELS = ('x', 'y')")
    text = "from sibling_of_mine import LABELS" + GOOD.replace('("a", "b")', "LABELS")
    before = list(sys.path)
    assert find(str(_write(tmp_path, text))).labels == ("x", "y")
    assert sys.path == before


def test_a_folder_is_no_network(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"is a folder, not a \.py file"):
        find(str(tmp_path))


def test_the_bundle_s_own_file_by_its_path() -> None:
    path = Path(torchvision.__file__).with_name("cyclegan.py")
    assert find(str(path)).name == "cyclegan"


def test_a_name_like_no_other_lists_the_bundle_s_networks() -> None:
    with pytest.raises(ExportError, match=r"there is cyclegan, resnet101\. Any classifier"):
        find("zzzzzz")
