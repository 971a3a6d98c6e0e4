"""Every method of TorchServe's gRPC servers: whatever is sent to it, the models still answer.

The methods come from the .proto files in TorchServe's own jar, so a method that a new version adds
fails here until it is tested.
"""

from __future__ import annotations

import json
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

from serving.config import Config
from tests.routes import post, predict, prediction
from tests.running import Running

JAR = Path(ts.__file__).parent / "frontend" / "model-server.jar"
PROTOS = ("inference.proto", "management.proto", "open_inference_grpc.proto")
TIMEOUT_S = 20

INFERENCE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
MANAGEMENT = "org.pytorch.serve.grpc.management.ManagementAPIsService"
OPEN = "org.pytorch.serve.grpc.openinference.GRPCInferenceService"

# Sends requests, each a dict of fields, and returns the answers; raises RpcError.
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
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.Add(file)
    return {
        f"/{service.full_name}/{method.name}": method
        for name in PROTOS
        for service in pool.FindFileByName(name).services_by_name.values()
        for method in service.methods
    }


@pytest.fixture
def call(server: Running, methods: dict[str, Any]) -> Call:
    started_with = Config.read(server.run.path / "config.properties").values
    ports = {
        INFERENCE: server.config.grpc,
        OPEN: server.config.grpc,
        MANAGEMENT: f"127.0.0.1:{started_with['grpc_management_port']}",
    }

    def send(path: str, *requests: dict[str, Any]) -> list[Any]:
        method = methods[path]
        message = message_factory.GetMessageClass(method.input_type)
        answer = message_factory.GetMessageClass(method.output_type)
        sides = (method.client_streaming, method.server_streaming)
        kind = "_".join("stream" if streams else "unary" for streams in sides)
        messages = [message(**request) for request in requests]
        with grpc.insecure_channel(ports[method.containing_service.full_name]) as channel:
            stub = getattr(channel, kind)(
                path,
                request_serializer=message.SerializeToString,
                response_deserializer=answer.FromString,
            )
            reply = stub(iter(messages) if sides[0] else messages[0], timeout=TIMEOUT_S)
            return list(reply) if sides[1] else [reply]

    return send


@pytest.fixture(autouse=True)
def all_models_answer_afterwards(server: Running, jpeg: bytes) -> Iterator[None]:
    yield
    for model in server.management.models():
        assert predict(server, model, data=jpeg, size=b"64")


PING = f"/{INFERENCE}/Ping"
PREDICTIONS = f"/{INFERENCE}/Predictions"
STREAM = f"/{INFERENCE}/StreamPredictions"
STREAM_2 = f"/{INFERENCE}/StreamPredictions2"
DAMAGED = {"data": b"damaged"}


def request(model: str = "resnet101", **more: Any) -> dict[str, Any]:
    return {"model_name": model, **more}


# By method: the requests of one call, and whether it is refused with a status.
CALLS: dict[str, list[tuple[list[dict[str, Any]], bool]]] = {
    PING: [([{}], False)],
    PREDICTIONS: [
        ([request(input={"data": "JPEG"})], False),
        ([request(input=DAMAGED)], True),
        ([request()], True),
        ([request("cyclegan", input={"data": "JPEG", "size": b"1"})], True),
        ([request("unknown")], True),
        ([request(model_version="7.0")], True),
        ([{}], True),
    ],
    STREAM: [
        ([request(input={"data": "JPEG"})], False),
        ([request(input=DAMAGED)], True),
        ([request()], True),
        ([request("unknown")], True),
        ([{}], True),
    ],
    # TorchServe fails on it after it has queued the request, with or without a picture.
    STREAM_2: [
        ([request(input={"data": "JPEG"}, sequence_id="x")], True),
        ([request(sequence_id="x")], True),
        ([request(input=DAMAGED, sequence_id="x")], True),
        ([request("cyclegan", input={"data": "JPEG", "size": b"64"}, sequence_id="x")], True),
        ([request(input=DAMAGED, sequence_id="x")] * 3, True),
        ([request("unknown", sequence_id="x")], True),
        # Without a sequence TorchServe answers with a message that has its status inside.
        ([request(input={"data": "JPEG"})], False),
    ],
    # This protocol is off: its answers are JSON of another form, and ours would stop the model.
    **{
        f"/{OPEN}/{method}": [([{}], True)]
        for method in ("ServerLive", "ServerReady", "ServerMetadata")
    },
    f"/{OPEN}/ModelReady": [([{"name": "resnet101"}], True)],
    f"/{OPEN}/ModelMetadata": [([{"name": "resnet101"}], True)],
    f"/{OPEN}/ModelInfer": [([request(id="1")], True), ([request("unknown")], True)],
    f"/{MANAGEMENT}/DescribeModel": [
        ([request()], False),
        ([request(customized=True)], False),
        ([request("unknown")], True),
    ],
    f"/{MANAGEMENT}/ListModels": [([{"limit": 5}], False)],
    f"/{MANAGEMENT}/RegisterModel": [
        ([{"url": "https://127.0.0.1/x.mar"}], True),
        ([{"url": "../../x.mar"}], True),
        ([{}], True),
    ],
    f"/{MANAGEMENT}/ScaleWorker": [
        ([request(min_worker=1, max_worker=1, synchronous=True)], False),
        ([request("unknown", min_worker=1)], True),
    ],
    f"/{MANAGEMENT}/SetDefault": [
        ([request(model_version="1.0")], False),
        ([request(model_version="7.0")], True),
    ],
    f"/{MANAGEMENT}/UnregisterModel": [
        ([request("unknown")], True),
        ([request(model_version="7.0")], True),
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
def test_a_call_ends(
    call: Call, jpeg: bytes, path: str, requests: list[dict[str, Any]], refused: bool
) -> None:
    for fields in requests:
        if fields.get("input", {}).get("data") == "JPEG":
            fields["input"] = {**fields["input"], "data": jpeg}
    if refused:
        with pytest.raises(grpc.RpcError) as caught:
            call(path, *requests)
        assert caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
    else:
        assert call(path, *requests)


def test_a_stream_that_waits_for_an_answer(server: Running) -> None:
    """The client keeps its half of the call open until TorchServe has the worker's answer."""
    message = prediction("resnet101", **DAMAGED).SerializeToString()
    sequence_id = bytes([4 << 3 | 2, 1]) + b"x"

    def stay() -> Iterator[bytes]:
        yield message + sequence_id
        time.sleep(2)

    with grpc.insecure_channel(server.config.grpc) as channel:
        stub = channel.stream_stream(STREAM_2, request_serializer=bytes)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub(stay(), timeout=TIMEOUT_S))
    assert caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED


def test_streams_in_a_batch_with_others(server: Running, call: Call, jpeg: bytes) -> None:
    """The handlers set a header without which a streamed answer ends the worker."""
    before = [worker.pid for worker in server.management.workers("resnet101")]
    good = request(input={"data": jpeg})
    with ThreadPoolExecutor(20) as pool:
        streams = [pool.submit(call, STREAM, good) for _ in range(4)]
        unary = [pool.submit(predict, server, "resnet101", data=jpeg) for _ in range(6)]
        rest = [pool.submit(post, server, "resnet101", data=jpeg) for _ in range(4)]
        failing = request(input=DAMAGED, sequence_id="x")
        failed = [pool.submit(call, STREAM_2, failing) for _ in range(6)]
        answers = [json.loads(answer.prediction) for s in streams for answer in s.result()]
        assert [len(answer["predictions"]) for answer in answers] == [5] * 4
        assert all(b"predictions" in answer.result() for answer in unary)
        for answer in rest:
            assert answer.result().status_code == 200
            assert "ts_stream_next" not in answer.result().headers
        assert all(isinstance(call_.exception(), grpc.RpcError) for call_ in failed)
    with pytest.raises(grpc.RpcError) as caught:
        call(STREAM, request(input=DAMAGED))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert [worker.pid for worker in server.management.workers("resnet101")] == before
