"""`rules`: a file of the shop's rules becomes the topic's."""

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from cli.common import DATA, Data, console, progress
from deploy.local.stack import Stack, StackError
from schema.errors import MessageError
from schema.rule import parse_rule


def rules(
    file: Annotated[Path, typer.Argument(help="TOML: a table [rules.ID] for each rule.", exists=True, dir_okay=False)],
    data: Data = DATA,
    topic: Annotated[str, typer.Option(help="Topic to send to.")] = "rules",
    check: Annotated[bool, typer.Option("--check", help="Say what is wrong, and send nothing.")] = False,
) -> None:
    """Make the rules of a file the shop's: those that changed are sent, those that it does not have are taken back.

    Nothing is sent where one of them is not valid: then every fault of each is said.
    """
    wanted = read_rules(file)
    if check:
        console.print(f"{len(wanted)} rules, all valid")
        return
    server = Stack(data).bootstrap_servers
    known = _known(server, topic)
    changes = {rule_id: rule for rule_id, rule in wanted.items() if known.get(rule_id) != rule}
    gone = [rule_id for rule_id in known if rule_id not in wanted]
    _send(server, topic, {**changes, **dict.fromkeys(gone)})
    for word, names in (("sent", changes), ("taken back", gone)):
        for name in names:
            console.print(f"{name}: {word}")
    progress.print(f"{len(wanted)} rules, {len(changes)} sent, {len(gone)} taken back.")


def read_rules(file: Path) -> dict[str, bytes]:
    """The rules of a TOML file as messages by their ids. Raises StackError with every fault of each."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StackError(f"{file} is no TOML: {error}") from error
    tables = document.pop("rules", None)
    if document:
        # A typing error would take back every rule.
        raise StackError(f"{file} holds {', '.join(sorted(document))} beside rules.")
    if not isinstance(tables, dict):
        raise StackError(f"{file} must hold a table [rules.ID] for each rule.")
    messages, faults = {}, []
    for rule_id, fields in tables.items():
        given = fields if isinstance(fields, dict) else {"rule": fields}
        message = msgspec.json.encode({"rule_id": rule_id, **given})
        try:
            parse_rule(rule_id, message)
        except MessageError as error:
            faults.append(f"  {rule_id}: {error.reason}")
        messages[rule_id] = message
    if faults:
        raise StackError("\n".join([f"{file} has {len(faults)} faulty rules:", *faults]))
    return messages


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(rich_help_panel="Events and lists")(rules)


def _known(server: str, topic: str) -> dict[str, bytes]:
    """The rules that the topic holds."""
    from kafka import KafkaConsumer, TopicPartition
    from kafka.errors import KafkaError

    known: dict[str, bytes] = {}
    try:
        consumer = KafkaConsumer(bootstrap_servers=server, group_id=None)
        try:
            parts = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic) or ()]
            if not parts:
                raise StackError(f"There is no topic {topic}: `headrace up` and `headrace submit` make it.")
            consumer.assign(parts)
            consumer.seek_to_beginning()
            ends = consumer.end_offsets(parts)
            while any(consumer.position(part) < end for part, end in ends.items()):
                for records in consumer.poll(timeout_ms=500).values():
                    for record in records:
                        if record.key is None:
                            continue
                        known.pop(record.key.decode(), None)
                        if record.value is not None:
                            known[record.key.decode()] = record.value
        finally:
            consumer.close()
    except KafkaError as error:
        raise StackError(f"The broker at {server} does not give rules: {error}") from error
    return known


def _send(server: str, topic: str, messages: dict[str, bytes | None]) -> None:
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    try:
        producer = KafkaProducer(bootstrap_servers=server)
        sent = [producer.send(topic, value=value, key=key.encode()) for key, value in messages.items()]
        for future in sent:
            future.get(timeout=30)
        producer.close()
    except KafkaError as error:
        raise StackError(f"The broker at {server} does not take rules: {error}") from error
