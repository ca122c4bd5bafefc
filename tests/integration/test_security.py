"""The job against a broker that asks for TLS and SCRAM, with the least ACLs that docs/security.md names."""

import ssl
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from deploy.local.stack import Stack, _free_port
from deploy.local.topics import create_topics, default_topics
from tests.integration.test_recommend_job import Topics

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
PASSWORDS = {"headrace": "job-secret-5519", "shop": "shop-secret-5520", "serving": "serving-secret-5521"}
ACLS = {
    "headrace": [
        ("TOPIC", "events", "READ"),
        ("TOPIC", "items", "READ"),
        *(("TOPIC", topic, "READ") for topic in ("segments", "rules", "experiments", "review-decisions")),
        ("GROUP", "headrace", "READ"),
        ("TOPIC", "recommendations", "WRITE"),
        ("TOPIC", "dead-letters", "WRITE"),
        ("TOPIC", "erasures", "WRITE"),
        ("TOPIC", "similar-items", "WRITE"),
        ("TOPIC", "category-items", "WRITE"),
        ("TOPIC", "forbidden-items", "WRITE"),
        ("TOPIC", "review-queue", "WRITE"),
    ],
    "shop": [("TOPIC", "recommendations", "READ"), ("TOPIC", "events", "WRITE"), ("TOPIC", "items", "WRITE")],
    "serving": [
        *(
            ("TOPIC", topic, "READ")
            for topic in ("events", "items", "recommendations", "similar-items", "category-items", "forbidden-items")
        ),
        ("TOPIC", "events", "WRITE"),
    ],
}


def client(server: str, user: str, authority: ssl.SSLContext, password: str | None = None) -> dict[str, Any]:
    """Arguments of a kafka-python client of that user."""
    return {
        "bootstrap_servers": server,
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": user,
        "sasl_plain_password": password or PASSWORDS[user],
        "ssl_context": authority,
    }


def _key_and_certificates(certificate: trustme.LeafCert) -> bytes:
    """In the one form that Java reads, PKCS #8."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + chain


def test_lists_flow_over_tls_and_scram_with_the_least_acls(
    tmp_path: Path, jars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
    from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
    from kafka.errors import KafkaError, TopicAuthorizationFailedError

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "broker.pem").write_bytes(_key_and_certificates(authority.issue_cert("127.0.0.1")))
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    server = f"127.0.0.1:{_free_port()}"
    broker = {
        "listeners": f"SASL_SSL://{server}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(tmp_path / "broker.pem"),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # Whoever comes to the stack's own listener, which asks for no name.
        "super.users": "User:ANONYMOUS",
    }
    stack = Stack(tmp_path / "stack", jars, broker, PASSWORDS)
    try:
        stack.up(kafka_port=0, flink_port=0, metrics_port=0)
        create_topics(stack.bootstrap_servers, default_topics())
        admin = KafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)
        admin.create_acls(
            [
                ACL(
                    principal=f"User:{user}",
                    host="*",
                    operation=ACLOperation[operation],
                    permission_type=ACLPermissionType.ALLOW,
                    resource_pattern=ResourcePattern(ResourceType[kind], name),
                )
                for user, acls in ACLS.items()
                for kind, name, operation in acls
            ]
        )
        admin.close()

        (tmp_path / "password").write_text(PASSWORDS["headrace"] + "\n")
        for name, value in {
            "bootstrap_servers": server,
            "security_protocol": "SASL_SSL",
            "username": "headrace",
            "password_file": str(tmp_path / "password"),
            "ca_file": str(tmp_path / "ca.pem"),
        }.items():
            monkeypatch.setenv(f"HEADRACE_KAFKA__{name.upper()}", value)
        job = stack.submit(Path("jobs/recommend.py"))

        shop = client(server, "shop", trusting)
        producer = KafkaProducer(**shop)
        for number in range(20):
            producer.send("events", value=Topics.event(number, f"u{number % 2}", f"i{number % 5}"))
        producer.send("events", value=b"{")
        producer.flush()
        consumer = KafkaConsumer("recommendations", auto_offset_reset="earliest", group_id=None, **shop)
        came: set[str] = set()
        deadline = time.monotonic() + 180
        while not {"u0", "u1"} <= came:
            assert time.monotonic() < deadline, came
            for records in consumer.poll(timeout_ms=200).values():
                came |= {record.key.decode() for record in records}
        consumer.close()

        (tmp_path / "serving-password").write_text(PASSWORDS["serving"])
        monkeypatch.setenv("HEADRACE_KAFKA__USERNAME", "serving")
        monkeypatch.setenv("HEADRACE_KAFKA__PASSWORD_FILE", str(tmp_path / "serving-password"))
        with httpx.Client(base_url=stack.serve()) as reader:
            assert reader.get("/users/u0/recommendations").json()["strategy"] == "personal"
            event = {"user_id": "u0", "event_type": "view", "item_id": "i1"}
            assert reader.post("/events", json=event).status_code == 202
        stack.stop_serving()
        stack.stop_with_savepoint(job)

        # Everything else is refused: who may not write there, and who has another password.
        with pytest.raises(TopicAuthorizationFailedError):
            producer.send("dead-letters", value=b"forged").get(timeout=10)
        producer.close()
        with pytest.raises(KafkaError):
            KafkaAdminClient(**client(server, "shop", trusting, "guessed"), bootstrap_timeout_ms=5000).list_topics()
        for log in stack.logs.iterdir():
            for secret in PASSWORDS.values():
                assert secret not in log.read_text(errors="replace"), log
    finally:
        stack.down()
