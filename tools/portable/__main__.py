"""Write a portable bundle, dist/NAME-VERSION.tar.gz: the archives, the server, what installs it.

On another machine `tar xf` unpacks it and `./run` checks every file, installs and serves. The
bundle carries neither keys.txt nor tls/.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy.portable import checksums
from serving.archives import read_archives
from serving.commandline import Parser, guarded, names
from serving.config import Config
from tools.portable import contents, lock, pack, sbom, signature

ROOT = contents.ROOT
LOCK = ROOT / "requirements.lock"


def main(given: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(given)
    return guarded(lambda: _build(arguments))


def _parser() -> Parser:
    parser = Parser(prog="python -m tools.portable", description=__doc__)
    add = parser.add_argument
    add("--model-store", type=Path, metavar="DIR", help="folder of the archives")
    add(
        "--models", type=names, default=(), metavar="NAME,NAME",
        help="carry these only (default: as the server would serve)",
    )  # fmt: skip
    add(
        "--config", type=Path, default=ROOT / "config.properties", metavar="FILE",
        help="its model_store and load_models count (default: %(default)s)",
    )  # fmt: skip
    add(
        "--wheels", action="store_true",
        help="carry every package, Java and Envoy too, for this Python and this kind of machine: "
        "the other one then needs no network",
    )  # fmt: skip
    add(
        "--sign", type=Path, metavar="KEY",
        help="sign with this SSH key: .tar.gz.sig beside the bundle",
    )  # fmt: skip
    add(
        "--folder", type=Path, default=ROOT / "dist", metavar="DIR",
        help="where the bundle is written (default: %(default)s)",
    )  # fmt: skip
    return parser


def _build(arguments: argparse.Namespace) -> int:
    key = arguments.sign.expanduser() if arguments.sign else None
    if key:
        signature.check_key(key)
    config = Config.read(arguments.config).move(model_store=arguments.model_store)
    config = config.select(arguments.models) if arguments.models else config
    archives, product, folder = read_archives(config), contents.Product.read(), arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{product.full_name}.tar.gz"
    beside = target.with_name(f"{target.name}.sig")
    with tempfile.TemporaryDirectory() as work:
        _say("building the client's wheel")
        client = contents.build_client(Path(work))
        wheels: list[Path] = []
        if arguments.wheels:
            _say(f"downloading the wheels of {LOCK.name} (3 GB the first time)")
            wheels = lock.download(LOCK, contents.installer(), folder / "wheels")
        files = contents.sources(archives, client, wheels)
        pack.check_space(folder, files)
        _say(f"packing {len(files)} files")
        sums = checksums.digests(files)
        about = contents.about(product, wheels=arguments.wheels)
        made = {
            "bundle.json": (json.dumps(about, indent=2) + "\n").encode(),
            "sbom.cdx.json": sbom.write(product, lock.read(LOCK), archives, sums),
        }
        with pack.packed(target, product.full_name, files, made, sums) as part:
            signed = signature.sign(part, key) if key else None
            beside.unlink(missing_ok=True)  # of the bundle that this one replaces
    if signed is not None:
        beside.write_bytes(signed)
    for line in contents.secrets_of(config):
        print(
            f"warning: {config.path.name} has {line}, and the bundle does not carry that file: on "
            "the other machine, start with --set and a path there",
            file=sys.stderr,
        )
    _say(f"{target}  {target.stat().st_size / 2**20:.0f} MiB")
    _say(f"sha256  {checksums.digest(target)}")
    _say(f"there   tar xf {target.name} && {product.full_name}/run")
    if signed is not None:
        verify = f"ssh-keygen -Y verify -n {signature.NAMESPACE} -f allowed_signers -I SIGNER"
        _say(f"signed  {beside}\nthere   {verify} -s {beside.name} < {target.name}")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
