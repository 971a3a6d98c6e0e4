"""The task embed: a vector in each format, and its option. Also how numbers are printed."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from handlers.errors import InvalidOption, NotAcceptable
from handlers.request import Answer, Message, parse
from handlers.tasks import shortest
from handlers.tasks.classify import Classify
from handlers.tasks.embed import Embed
from tests.specs import RESNET101

SPEC = dataclasses.replace(RESNET101, name="resnet101_embed", task="embed", output="features")
TASK = Embed(SPEC)
VECTOR = torch.tensor([3.0, 0.1, 0.0, -4.0])


def answered(headers: Mapping[str, str], output: torch.Tensor = VECTOR) -> Answer:
    """The answer of the task to a request with these headers."""
    return TASK.answer(output, parse(Message(headers, b"P"), TASK.offer))


def vector(answer: Answer) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.frombuffer(answer.body, "<f4")


@pytest.mark.parametrize(
    ("headers", "media"),
    [
        ({}, "application/json"),
        ({"accept": "*/*"}, "application/json"),
        ({"accept": "application/*"}, "application/json"),
        ({"accept": "application/x-npy"}, "application/x-npy"),
        ({"accept": "application/octet-stream"}, "application/octet-stream"),
        ({"accept": "application/json;q=0.5, application/x-npy"}, "application/x-npy"),
        ({"accept": "application/json", "x-format": "f32"}, "application/octet-stream"),
        ({"x-format": "NPY"}, "application/x-npy"),
    ],
)
def test_the_format_is_negotiated(headers: dict[str, str], media: str) -> None:
    answer = answered(headers)
    assert answer.content_type == media
    values: object
    if media == "application/json":
        body = json.loads(answer.body)
        assert list(body) == ["embedding"]
        values = body["embedding"]
    elif media == "application/x-npy":
        array = np.load(io.BytesIO(answer.body), allow_pickle=False)
        assert (array.dtype, array.shape) == (np.dtype("<f4"), (4,))
        values = array
    else:
        assert len(answer.body) == 4 * len(VECTOR)
        values = vector(answer)
    assert np.array_equal(np.asarray(values, np.float32), VECTOR.numpy())


def test_no_picture_is_offered() -> None:
    with pytest.raises(NotAcceptable, match="application/json, application/x-npy"):
        answered({"accept": "image/*"})


@pytest.mark.parametrize("on", ["1", "true", " True ", "TRUE"])
def test_normalize_gives_length_one(on: str) -> None:
    before = VECTOR.clone()
    unit = vector(answered({"x-normalize": on, "x-format": "f32"}))
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-6)
    assert np.allclose(unit * VECTOR.norm().item(), VECTOR.numpy())
    assert torch.equal(VECTOR, before), "the output must not be changed"


@pytest.mark.parametrize("off", ["0", "false", " False"])
def test_without_normalize_the_vector_is_the_networks(off: str) -> None:
    answer = answered({"x-normalize": off, "x-format": "f32"})
    assert vector(answer).tolist() == VECTOR.tolist()


@pytest.mark.parametrize(("value", "length"), [(0.0, 0.0), (1e30, 1.0), (1e-30, 1.0)])
def test_normalize_of_extreme_vectors(value: float, length: float) -> None:
    unit = vector(answered({"x-normalize": "1", "x-format": "f32"}, torch.full((9,), value)))
    assert np.linalg.norm(unit) == pytest.approx(length, abs=1e-6)


@pytest.mark.parametrize("given", [True, 1, 1.0, "true"])
def test_normalize_in_json(given: object) -> None:
    message = Message({}, {"data": "UA==", "normalize": given})
    assert parse(message, TASK.offer).options == {"normalize": 1}


@pytest.mark.parametrize("given", ["yes", "", "2", "-1", 2, 0.5, None, [True], {}, "1" * 10**6])
def test_other_values_of_normalize_are_refused(given: object) -> None:
    message = Message({}, {"data": "UA==", "normalize": given})
    with pytest.raises(InvalidOption, match=r"^normalize must be true or false$"):
        parse(message, TASK.offer)


def test_numbers_have_the_digits_that_mean_something() -> None:
    """Each is the shortest text that reads back as the same float32."""
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0)).exp2()
    values = torch.cat([values, torch.tensor([0.1, 1 / 3, 1e-30, 1.17e-38, 16777216.0, 0.0])])
    numbers = json.loads(json.dumps(shortest(values)))
    assert torch.equal(torch.tensor(numbers, dtype=torch.float32), values)
    assert json.dumps(shortest(torch.tensor([0.1, 1 / 3]))) == "[0.1, 0.33333334]"
    assert max(len(f"{number!r}") for number in numbers) <= len("1.23456789e-38")


def test_probabilities_have_them_too() -> None:
    task = Classify(dataclasses.replace(RESNET101, labels=("a", "b", "c")))
    logits = torch.tensor([0.0, 1.0, 2.0])
    answer = task.answer(logits, parse(Message({}, b"P"), task.offer))
    shown = [p["probability"] for p in json.loads(answer.body)["predictions"]]
    exact = logits.softmax(0).flip(0).numpy()
    assert [repr(probability) for probability in shown] == [str(share) for share in exact]
