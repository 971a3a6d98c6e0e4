"""The whole bundle on one photograph, for someone who has just cloned it."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import requests
from PIL import Image

from serving import commands
from serving.api import Api
from serving.config import Config
from serving.errors import ServingError
from serving.runfolder import RunFolder
from serving.supervisor import Stopped, running

# Chelsea the cat, by Stéfan van der Walt, CC0; as in scikit-image.
SAMPLE = Path(__file__).with_name("sample.jpg")
BAR = 30
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
        with running(config, run, device) as server:
            workers = server.wait_until_ready()
            show(server.api, run.path)
            commands.announce(server, workers)
            print_curl(config)
            if not once:
                print("\nserving until Ctrl-C", flush=True)
                server.wait()
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


def show(api: Api, folder: Path) -> None:
    """Classify and translate the sample photograph; the picture goes into ``folder``."""
    photograph = SAMPLE.read_bytes()
    predictions = _answer(api, "resnet101", photograph).json()["predictions"]
    print(f"\n{SAMPLE.parent.name}/{SAMPLE.name}: what ResNet-101 sees")
    print(bars(predictions))
    translated = _answer(api, "cyclegan", photograph).content
    path = folder / "before_after.png"
    before_after(photograph, translated).save(path)
    print(f"\nbefore and after the CycleGAN generator: {path}")


def bars(predictions: list[dict[str, object]]) -> str:
    """One line per prediction: percent, a bar, the label."""
    lines = []
    for prediction in predictions:
        probability = float(str(prediction["probability"]))
        bar = "█" * round(BAR * probability)
        lines.append(f"  {100 * probability:6.2f} % {bar:<{BAR}} {prediction['label']}")
    return "\n".join(lines)


def before_after(photograph: bytes, translated: bytes) -> Image.Image:
    """Both pictures side by side, the photograph at the size of its translation."""
    with Image.open(io.BytesIO(translated)) as after, Image.open(io.BytesIO(photograph)) as before:
        width, height = after.size
        both = Image.new("RGB", (2 * width + 8, height), "white")
        both.paste(before.convert("RGB").resize(after.size), (0, 0))
        both.paste(after, (width + 8, 0))
        return both


def print_curl(config: Config) -> None:
    """The lines to try next."""
    url = f"{config.inference}/predictions"
    print("\ntry it on a picture of yours")
    print(f"  curl -T photo.jpg {url}/resnet101")
    print(f"  curl -T photo.jpg -H 'x-top-k: 3' {url}/resnet101")
    print(f"  curl -T photo.jpg -H 'accept: image/jpeg' {url}/cyclegan -o zebra.jpg")
    print(f"  curl -F data=@photo.jpg -F size=512 {url}/cyclegan -o zebra.png")


def _answer(api: Api, model: str, photograph: bytes) -> requests.Response:
    try:
        response = api.predict(model, photograph, timeout=TIMEOUT_S)
    except requests.RequestException as error:
        raise ServingError(f"{model} does not answer: {error}") from error
    if not response.ok:
        raise ServingError(f"{model} answers {response.status_code}: {response.text}")
    return response


def _python(*arguments: str) -> int:
    return subprocess.run([sys.executable, *arguments], check=False).returncode
