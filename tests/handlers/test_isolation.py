"""A request in a batch is answered as if it were alone."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import pytest
import torch
from PIL import Image

from handlers.torchserve import Handler
from tests.handlers.support import Predict, Reply, Save, body, form

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.fixture(scope="module")
def seven(photographs: dict[str, Image.Image], saved: Save) -> list[bytes]:
    """Seven pictures of different sizes."""
    pictures = list(photographs.values())
    return [saved(pictures[i % 3].crop((10 * i, 0, 150 + 30 * i, 200)), "JPEG") for i in range(7)]


def same(replies: Sequence[Reply], lone: Sequence[Reply]) -> None:
    """The same answers; a batch may use other kernels, so probabilities may differ slightly."""
    for (status, headers, answer), (lone_status, lone_headers, lone_answer) in zip(
        replies, lone, strict=True
    ):
        assert (status, headers) == (lone_status, lone_headers)
        ours, expected = (json.loads(text)["predictions"] for text in (answer, lone_answer))
        for key in ("class_id", "label"):
            assert [p[key] for p in ours] == [p[key] for p in expected]
        assert [p["probability"] for p in ours] == pytest.approx(
            [p["probability"] for p in expected], abs=1e-5
        )


def error(reply: Reply) -> tuple[int, str]:
    """The status and type of a well-formed error."""
    status, headers, answer = reply
    parsed = json.loads(answer)
    assert headers == {
        "content-type": "application/json",
        "x-model-weights": "untrained",
        "x-model-version": "",
        "x-error-type": parsed["type"],
    }
    assert set(parsed) == {"code", "type", "message"}
    assert parsed["code"] == status
    assert parsed["message"]
    return status, parsed["type"]


@pytest.fixture(scope="module")
def lone(resnet: Handler, predict: Predict, seven: list[bytes]) -> list[Reply]:
    """Each picture's answer when it is the only one of its batch."""
    return [predict(resnet, body(data))[0] for data in seven]


def test_different_pictures_have_different_answers(lone: list[Reply]) -> None:
    """Otherwise the other tests could not detect swapped answers."""
    assert {status for status, _, _ in lone} == {200}
    assert len({answer for _, _, answer in lone}) == 7


@pytest.mark.parametrize("position", [0, 7])
def test_one_bad_picture_among_eight(
    resnet: Handler,
    predict: Predict,
    seven: list[bytes],
    lone: list[Reply],
    position: int,
) -> None:
    batch = [body(data) for data in seven]
    batch.insert(position, body(seven[0][:500]))
    replies = predict(resnet, *batch)
    assert error(replies.pop(position)) == (400, "BadImage")
    same(replies, lone)


def test_every_kind_of_error_in_one_batch(
    resnet: Handler, predict: Predict, seven: list[bytes], lone: list[Reply]
) -> None:
    good = seven[0]
    bad = {
        (400, "EmptyBody"): body(b""),
        (400, "BadImage"): body(good[: len(good) // 2]),
        (400, "BadRequest"): body({"data": "***"}),
        (406, "NotAcceptable"): body(good, {"Accept": "image/png"}),
        (413, "TooLarge"): body(bytes(16 * 2**20 + 1)),
        (415, "UnsupportedFormat"): body(HEIC),
        (422, "InvalidOption"): form(data=good, top_k=b"0"),
    }
    replies = predict(resnet, body(seven[1]), *bad.values(), form(data=seven[2]))
    assert [error(reply) for reply in replies[1:-1]] == list(bad)
    same([replies[0], replies[-1]], lone[1:3])


def test_each_request_has_its_own_options(
    resnet: Handler, predict: Predict, chelsea: bytes
) -> None:
    replies = predict(
        resnet,
        body(chelsea),
        body(chelsea, {"X-Top-K": "1"}),
        form(data=chelsea, top_k=b"1000"),
        body({"data": "", "top_k": 2}),
        body(chelsea),
    )
    assert [reply[0] for reply in replies] == [200, 200, 200, 400, 200]
    counts = [len(json.loads(r[2])["predictions"]) for r in replies if r[0] == 200]
    assert counts == [5, 1, 1000, 5]


def test_each_picture_has_its_own_size_and_format(
    cyclegan: Handler, predict: Predict, chelsea: bytes, saved: Save
) -> None:
    tall = saved(Image.new("RGB", (30, 50), "green"))
    replies = predict(
        cyclegan,
        form(data=chelsea, size=b"64"),
        form(data=tall, size=b"64", format=b"jpeg"),
        form(data=chelsea, size=b"66"),
        form(data=chelsea, size=b"80", format=b"WEBP"),
        body(tall, {"X-Size": "64", "Accept": "image/webp, image/jpeg;q=0.5"}),
        form(data=chelsea, size=b"64"),
        form(data=saved(Image.new("RGB", (1, 1000))), size=b"256"),
        form(data=chelsea, quality=b"96"),
    )
    answers: list[tuple[object, ...]] = []
    for status, headers, answer in replies:
        assert headers["x-model-weights"] == "untrained"
        if status == 200:
            with Image.open(io.BytesIO(answer)) as image:
                answers.append((headers["content-type"], image.format, image.size))
        else:
            answers.append(error((status, headers, answer)))
    assert answers == [
        ("image/png", "PNG", (96, 64)),
        ("image/jpeg", "JPEG", (64, 108)),
        (422, "InvalidOption"),
        ("image/webp", "WEBP", (120, 80)),
        ("image/webp", "WEBP", (64, 108)),
        ("image/png", "PNG", (96, 64)),
        (413, "TooLarge"),
        (422, "InvalidOption"),
    ]
    assert replies[0][2] == replies[5][2]


def test_pictures_of_one_size_go_through_the_network_together(
    cyclegan: Handler, predict: Predict, chelsea: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, shapes = cyclegan.service.engine._network, []

    def recorded(batch: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(batch.shape))
        output: torch.Tensor = network(batch)
        return output

    monkeypatch.setattr(cyclegan.service.engine, "_network", recorded)
    predict(cyclegan, *(form(data=chelsea, size=size) for size in (b"64", b"80", b"64")))
    assert shapes == [(2, 3, 64, 96), (1, 3, 80, 120)]


def test_no_request_state_is_kept_on_the_handler(
    resnet: Handler, predict: Predict, chelsea: bytes
) -> None:
    kept = (resnet, resnet.service, resnet.service.engine, resnet.service.task)
    before = [dict(vars(one)) for one in kept]
    predict(resnet, body(chelsea), body(b""))
    for one, values in zip(kept, before, strict=True):
        assert set(vars(one)) == set(values)
        assert all(vars(one)[name] is value for name, value in values.items())
