"""Every method that TorchServe's gRPC servers expose: whatever it is sent, the models answer after.

The methods come from the .proto files in TorchServe's own jar, so one that a new version adds fails
here until it is tested.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import ts
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

from vision_client import inference_pb2

JAR = Path(ts.__file__).parent / "frontend" / "model-server.jar"
PROTOS = ("inference.proto", "management.proto", "open_inference_grpc.proto")
TIMEOUT_S = 20

INFERENCE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
MANAGEMENT = "org.pytorch.serve.grpc.management.ManagementAPIsService"
OPEN = "org.pytorch.serve.grpc.openinference.GRPCInferenceService"

# Sends the requests, each a dict of fields, and returns the answers; raises RpcError.
Call = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def methods(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Descriptors of all methods in the jar's .proto files, by ``/service/method``."""
    folder = tmp_path_factory.mktemp("protos")
    with zipfile.ZipFile(JAR) as jar:
        for name in jar.namelist():
            if name.endswith(".proto") and not name.startswith("proto/"):
                jar.extract(name, folder)
    out = folder / "descriptors"
    arguments = ["", f"-I{folder}", "--include_imports", f"--descriptor_set_out={out}", *PROTOS]
    assert protoc.main(arguments) == 0
    found = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in found.file:
        pool.Add(file)
    return {
        f"/{service.full_name}/{method.name}": method
        for name in PROTOS
        for service in pool.FindFileByName(name).services_by_name.values()
        for method in service.methods
    }


@pytest.fixture
def call(server: Any, methods: dict[str, Any]) -> Call:
    ports = {
        INFERENCE: server.config.grpc,
        OPEN: server.config.grpc,
        MANAGEMENT: "{}:{}".format(*server.config.addresses["grpc_management_port"]),
    }

    def send(path: str, *requests: dict[str, Any]) -> list[Any]:
        method = methods[path]
        message = message_factory.GetMessageClass(method.input_type)
        answer = message_factory.GetMessageClass(method.output_type)
        with grpc.insecure_channel(ports[method.containing_service.full_name]) as channel:
            kind = "{}_{}".format(
                "stream" if method.client_streaming else "unary",
                "stream" if method.server_streaming else "unary",
            )
            stub = getattr(channel, kind)(
                path,
                request_serializer=message.SerializeToString,
                response_deserializer=answer.FromString,
            )
            sent = [message(**request) for request in requests]
            found = stub(iter(sent) if method.client_streaming else sent[0], timeout=TIMEOUT_S)
            return list(found) if method.server_streaming else [found]

    return send


@pytest.fixture(autouse=True)
def both_models_answer_afterwards(server: Any, jpeg: bytes) -> Iterator[None]:
    yield
    for model in ("resnet101", "cyclegan"):
        fields = {"data": jpeg, "size": b"64"} if model == "cyclegan" else {"data": jpeg}
        request = inference_pb2.PredictionsRequest(model_name=model, input=fields)
        assert server.grpc.Predictions(request, timeout=60).prediction


PING = f"/{INFERENCE}/Ping"
PREDICTIONS = f"/{INFERENCE}/Predictions"
STREAM = f"/{INFERENCE}/StreamPredictions"
STREAM_2 = f"/{INFERENCE}/StreamPredictions2"
DAMAGED = {"data": b"damaged"}


def asked(model: str = "resnet101", **more: Any) -> dict[str, Any]:
    return {"model_name": model, **more}


# By method: the requests of one call, and whether it is refused with a status.
CALLS: dict[str, list[tuple[list[dict[str, Any]], bool]]] = {
    PING: [([{}], False)],
    PREDICTIONS: [
        ([asked(input={"data": "JPEG"})], False),
        ([asked(input=DAMAGED)], True),
        ([asked()], True),
        ([asked("cyclegan", input={"data": "JPEG", "size": b"1"})], True),
        ([asked("unknown")], True),
        ([asked(model_version="7.0")], True),
        ([{}], True),
    ],
    STREAM: [
        ([asked(input={"data": "JPEG"})], False),
        ([asked(input=DAMAGED)], True),
        ([asked()], True),
        ([asked("unknown")], True),
        ([{}], True),
    ],
    # TorchServe fails on it after it has queued the request, with or without a picture.
    STREAM_2: [
        ([asked(input={"data": "JPEG"}, sequence_id="x")], True),
        ([asked(sequence_id="x")], True),
        ([asked(input=DAMAGED, sequence_id="x")], True),
        ([asked("cyclegan", input={"data": "JPEG", "size": b"64"}, sequence_id="x")], True),
        ([asked(input=DAMAGED, sequence_id="x")] * 3, True),
        ([asked("unknown", sequence_id="x")], True),
        # Without a sequence TorchServe answers with a message that has its status inside.
        ([asked(input={"data": "JPEG"})], False),
    ],
    # This protocol is off: its answers are JSON of another form, and ours would stop the model.
    **{
        f"/{OPEN}/{method}": [([{}], True)]
        for method in ("ServerLive", "ServerReady", "ServerMetadata")
    },
    f"/{OPEN}/ModelReady": [([{"name": "resnet101"}], True)],
    f"/{OPEN}/ModelMetadata": [([{"name": "resnet101"}], True)],
    f"/{OPEN}/ModelInfer": [([asked(id="1")], True), ([asked("unknown")], True)],
    f"/{MANAGEMENT}/DescribeModel": [
        ([asked()], False),
        ([asked(customized=True)], False),
        ([asked("unknown")], True),
    ],
    f"/{MANAGEMENT}/ListModels": [([{"limit": 5}], False)],
    f"/{MANAGEMENT}/RegisterModel": [
        ([{"url": "https://127.0.0.1/x.mar"}], True),
        ([{"url": "../../x.mar"}], True),
        ([{}], True),
    ],
    f"/{MANAGEMENT}/ScaleWorker": [
        ([asked(min_worker=1, max_worker=1, synchronous=True)], False),
        ([asked("unknown", min_worker=1)], True),
    ],
    f"/{MANAGEMENT}/SetDefault": [
        ([asked(model_version="1.0")], False),
        ([asked(model_version="7.0")], True),
    ],
    f"/{MANAGEMENT}/UnregisterModel": [
        ([asked("unknown")], True),
        ([asked(model_version="7.0")], True),
    ],
}


def test_every_method_is_tested(methods: dict[str, Any]) -> None:
    assert set(CALLS) == set(methods)


@pytest.mark.parametrize(
    ("path", "requests", "refused"),
    [
        pytest.param(path, requests, refused, id=f"{path.rpartition('/')[2]}-{i}")
        for path, calls in CALLS.items()
        for i, (requests, refused) in enumerate(calls)
    ],
)
def test_a_call_ends_and_harms_nobody(
    call: Call, jpeg: bytes, path: str, requests: list[dict[str, Any]], refused: bool
) -> None:
    for request in requests:
        if request.get("input", {}).get("data") == "JPEG":
            request["input"] = {**request["input"], "data": jpeg}
    if refused:
        with pytest.raises(grpc.RpcError) as caught:
            call(path, *requests)
        assert caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
    else:
        assert call(path, *requests)


def test_a_stream_that_waits_for_an_answer_harms_nobody(server: Any, call: Call) -> None:
    """The client keeps its half of the call open until TorchServe has the worker's answer."""
    request = inference_pb2.PredictionsRequest(model_name="resnet101", input=DAMAGED)
    sent = request.SerializeToString() + bytes([4 << 3 | 2, 1]) + b"x"  # sequence_id

    def stay() -> Iterator[bytes]:
        yield sent
        time.sleep(2)

    with grpc.insecure_channel(server.config.grpc) as channel:
        stub = channel.stream_stream(STREAM_2, request_serializer=bytes)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub(stay(), timeout=TIMEOUT_S))
    assert caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED


def test_streams_in_a_batch_with_others_harm_nobody(server: Any, call: Call, jpeg: bytes) -> None:
    def stream(_: int) -> None:
        with pytest.raises(grpc.RpcError):
            call(STREAM_2, asked(input=DAMAGED, sequence_id="x"))

    def predict(_: int) -> bytes:
        request = inference_pb2.PredictionsRequest(model_name="resnet101", input={"data": jpeg})
        answer: bytes = server.grpc.Predictions(request, timeout=60).prediction
        return answer

    with ThreadPoolExecutor(12) as pool:
        answers = pool.map(predict, range(6))
        list(pool.map(stream, range(6)))
        assert all(b"predictions" in answer for answer in answers)
