"""The service answers batches for any caller; it needs no server."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from handlers import tasks
from handlers.errors import BadRequest, LoadError, RequestError
from handlers.pictures.limits import Limits
from handlers.request import Answer, Message
from handlers.service import Service
from handlers.settings import Settings
from handlers.stages import STAGES, Stages
from tests.handlers.support import WriteArtefact
from tests.specs import CYCLEGAN

ROOT = Path(__file__).parents[2]
SETTINGS = Settings(Limits(pixels=20_000), "float32")


@pytest.fixture
def service(artefact: WriteArtefact) -> Iterator[Service]:
    service = Service(artefact(), settings=SETTINGS, batch_size=2)
    yield service
    service.close()


def test_each_member_of_a_batch_has_its_own_outcome(service: Service, chelsea: bytes) -> None:
    earlier = BadRequest("refused by the transport")
    answers = service.answer(
        [
            Message(body=chelsea, headers={"x-size": "64"}),
            Message(body=b"junk"),
            earlier,
            Message(fields={"data": chelsea, "size": b"80", "format": b"jpeg"}),
            Message(fields={"data": chelsea, "size": b"81"}),
            Message(),
            Message(body={"data": "***"}),
        ]
    )
    assert answers[2] is earlier
    pictures = [answers[0], answers[3]]
    shapes = []
    for answer in pictures:
        assert isinstance(answer, Answer)
        assert answer.code == 200
        with Image.open(io.BytesIO(answer.body)) as image:
            shapes.append((answer.content_type, image.format, image.size))
    assert shapes == [("image/png", "PNG", (96, 64)), ("image/jpeg", "JPEG", (120, 80))]
    errors = {i: a.__class__.__name__ for i, a in enumerate(answers) if isinstance(a, RequestError)}
    assert errors == {
        1: "BadImage",
        2: "BadRequest",
        4: "InvalidOption",
        5: "EmptyBody",
        6: "BadRequest",
    }


@pytest.mark.parametrize("messages", [[], [BadRequest("refused")], [Message(), Message()]])
def test_a_batch_without_pictures(service: Service, messages: list[Message | RequestError]) -> None:
    answers = service.answer(messages)
    assert len(answers) == len(messages)
    assert all(isinstance(answer, RequestError) for answer in answers)


def test_the_stages_get_the_times(service: Service, chelsea: bytes) -> None:
    stages = Stages()
    service.answer([Message(body=chelsea)], stages)
    assert all(stages.seconds[stage] > 0 for stage in STAGES)


def test_describe_is_the_metadata_and_the_state_of_the_worker(service: Service) -> None:
    assert service.describe() == {
        **service.metadata.to_map(),
        "device": "cpu",
        "precision": "float32",
        "precision_reason": service.engine.precision_reason,
        "engine": service.engine.name,
        "engine_reason": service.engine.reason,
        "limits": dataclasses.asdict(SETTINGS.limits),
        "sandbox": service.pool.sandbox,
    }
    assert service.pool.sandbox


def test_a_network_that_cannot_answer_is_not_served(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Answer:
        raise ValueError

    monkeypatch.setattr(service.task, "answer", broken)
    with pytest.raises(LoadError, match="cyclegan does not answer: the server failed"):
        service._check_canary()


def test_a_network_is_served_although_a_limit_refuses_the_canary(artefact: WriteArtefact) -> None:
    service = Service(artefact(), settings=Settings(Limits(pixels=1)))
    service.close()


def test_an_unknown_task_is_an_import_error() -> None:
    spec = dataclasses.replace(CYCLEGAN, task="segment")
    with pytest.raises(ImportError, match=r"handlers\.tasks\.segment"):
        tasks.load(spec)


def test_a_plain_python_caller_needs_bytes_and_no_torchserve(
    artefact: WriteArtefact, chelsea: bytes, tmp_path: Path
) -> None:
    (tmp_path / "picture.png").write_bytes(chelsea)
    code = """if True:
        import sys
        from pathlib import Path
        sys.modules["ts"] = None  # importing TorchServe would fail
        from handlers.request import Message
        from handlers.service import Service
        service = Service(Path(sys.argv[1]))
        (answer,) = service.answer([Message(body=Path(sys.argv[2]).read_bytes())])
        service.close()
        print(answer.code, answer.content_type, answer.body[1:4].decode())
    """
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(artefact()), tmp_path / "picture.png"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.stdout == "200 image/png PNG\n", run.stderr


def test_the_log_names_requests_by_their_ids(
    service: Service, chelsea: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "handlers")
    service.answer(
        [
            Message({"x-request-id": "4bf9-a.B_1"}, chelsea),
            Message({"x-request-id": "a\nb"}, b"junk"),
            Message({"x-request-id": "-"}, b"junk", given_id="7"),
            Message({}, chelsea),
        ]
    )
    assert "batch of 4: 4bf9-a.B_1 ok, - BadImage, 7 BadImage, - ok; " in caplog.text


def test_no_id_is_cut_from_the_log(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """TorchServe cuts lines after 2000 characters."""
    caplog.set_level("INFO", "handlers")
    ids = [f"{i:0128}" for i in range(40)]
    service.answer([Message({"x-request-id": id}, b"junk") for id in ids])
    lines = [record.getMessage() for record in caplog.records]
    assert all(line.startswith("batch of 40: ") and len(line) < 2000 for line in lines)
    assert [id for id in ids if not any(f"{id} BadImage" in line for line in lines)] == []
