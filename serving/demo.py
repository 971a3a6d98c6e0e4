"""The whole bundle on one photograph, for someone who has just cloned it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from serving import commands
from serving.config import Config
from serving.errors import ServingError
from serving.inference import connect
from serving.plan import Options
from serving.process import Stopped, running
from serving.readiness import wait_until_ready
from serving.runfolder import RunFolder
from vision_client import VisionError
from vision_client.show import bars, draw, side_by_side

# Chelsea the cat, by Stéfan van der Walt, CC0; as in scikit-image.
SAMPLE = Path(__file__).with_name("sample.jpg")
TIMEOUT_S = 120

UNTRAINED = """
  ****************************************************************************
  *  The published weights cannot be had here (the reason is above), so this *
  *  goes on with UNTRAINED networks: everything works, and the answers mean *
  *  nothing.                                                                *
  ****************************************************************************
"""


def demo(config: Config, run: RunFolder, device: str, *, once: bool) -> int:
    """Export, serve, predict; then serve on until Ctrl-C, or stop where ``once``."""
    export(config.model_store)
    print()
    try:
        with running(commands.prepare(config, run, Options(device)), run) as process:
            workers = wait_until_ready(process)
            show(config, run)
            commands.announce(process, workers)
            print_next(config)
            if not once:
                print("\nserving until Ctrl-C", flush=True)
                process.wait(workers)
    except Stopped:
        print("stopped")
        return 130 if once else 0
    return 0


def export(model_store: Path) -> None:
    """Archives of both networks: with the published weights if they can be had, else untrained."""
    print("looking for the published weights", flush=True)
    have_weights = _python("-m", "export.weights") == 0
    if not have_weights:
        print(UNTRAINED, flush=True)
    weights = "pretrained" if have_weights else "random"
    if _python("-m", "export", "--weights", weights, "--model-store", str(model_store)):
        raise ServingError("the export failed; its message is above")


def show(config: Config, run: RunFolder) -> None:
    """Classify and translate the sample photograph; the picture goes into the run folder."""
    terminal = Console()
    try:
        with connect(config, run, timeout=TIMEOUT_S) as client:
            seen = client.classify(SAMPLE)
            translated = client.translate(SAMPLE).image()
    except VisionError as error:
        raise ServingError(f"no true answer: {error}") from error
    print(f"\n{SAMPLE.parent.name}/{SAMPLE.name}: what ResNet-101 sees")
    terminal.print(bars(seen.predictions), soft_wrap=True)
    both = side_by_side(SAMPLE, translated)
    path = run.path / "before_after.png"
    both.save(path)
    print(f"\nbefore and after the CycleGAN generator: {path}")
    draw(both, terminal, os.environ)


def print_next(config: Config) -> None:
    """The lines to try next."""
    url = f"{config.inference}/predictions"
    print("\ntry it on a picture of yours, from another terminal")
    print("  make ui                                 a page in the browser")
    print("  .venv/bin/vision classify photo.jpg     folders, too: vision --help")
    print("  .venv/bin/vision translate photo.jpg -o zebras")
    print(f"  curl -T photo.jpg {url}/resnet101")
    print(f"  curl -T photo.jpg {url}/cyclegan -o zebra.png")


def _python(*arguments: str) -> int:
    return subprocess.run([sys.executable, *arguments], check=False).returncode
