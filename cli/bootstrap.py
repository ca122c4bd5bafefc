"""`headrace bootstrap`: a shop's history into a first model, and into its people's profiles."""

import gc
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import msgspec
import typer

from cli.common import Json, console, progress
from deploy.local.stack import StackError

if TYPE_CHECKING:
    from jobs.settings import Settings
    from model.profile import ProfileOptions
    from schema.event import EventParser

_BATCH = 4096


class History(msgspec.Struct):
    """What a history gave: how many events, and each user's packed profile."""

    events: int
    profiles: dict[str, bytes]


def learn_history(file: Path, model: Path, settings: "Settings") -> History:
    """Write the packed recommender that has learned the file's events in time order to `model`, as the job would have
    learned them, and return the profiles that they leave. Profiles are made in a process of their own."""
    import torch

    from model.blend import Recommender
    from model.delta import change_of
    from model.snapshot import unpack_snapshot
    from schema.item import Item

    here, there = get_context("spawn").Pipe(duplex=False)
    # Not the settings, which would import torch there.
    given = settings.events.parser(), settings.profile_options(), settings.privacy.key()
    reader = get_context("spawn").Process(target=_read, args=(file, *given, there), daemon=True)
    reader.start()
    there.close()
    torch.set_num_threads(1)
    recommender = Recommender(settings.blend_options())
    # What is there by now is looked at no more by the collector, which the snapshots would have run often.
    gc.freeze()
    events = 0
    for kind, found in _received(here):
        if kind == "catalogue":
            items, content = msgspec.convert(found, list[Item]), recommender.options.content
            recommender.learn([], [change_of(item, content)[0] for item in items])
        elif kind == "snapshots":
            recommender.learn([unpack_snapshot(packed) for packed in found])
            events += len(found)
        elif kind == "fault":
            raise typer.BadParameter(found)
        else:
            # It has nothing more to say, and would take a second to free what it holds.
            reader.kill()
            model.write_bytes(recommender.pack())
            reader.join()
            return History(events, dict(found))
    raise StackError(f"The process that reads {file} ended before its time.")


def _received(connection: Connection) -> Iterator[tuple[str, Any]]:
    try:
        while True:
            yield msgspec.msgpack.decode(connection.recv_bytes())
    except EOFError:
        return


def _read(
    file: Path,
    parser_of: "Callable[[], EventParser]",
    options: "ProfileOptions",
    key: bytes | None,
    connection: Connection,
) -> None:
    """The file's events as packed snapshots, in batches, then the profiles."""
    from cli.evaluate import read_events
    from model.profile import Profile, apply_event, erasure, pack_profile, snapshot
    from model.snapshot import pack_snapshot
    from schema.pseudonym import pseudonym

    # Nothing here is a cycle, and what is kept grows: the collector would look at all of it again and again.
    gc.disable()

    def send(kind: str, found: Any) -> None:
        connection.send_bytes(msgspec.msgpack.encode((kind, found)))

    try:
        events, catalogue = read_events(file, parser_of())
    except typer.BadParameter as fault:
        send("fault", fault.message)
        return
    if catalogue:
        send("catalogue", [catalogue[item] for item in sorted(catalogue)])
    profiles, batch = dict[str, Profile](), list[bytes]()
    for event in events:
        user_id = event.user_id
        if key is not None:
            # The model knows people by their pseudonyms; who sends profiles sends ids, as all events have.
            event.user_id = pseudonym(key, user_id)
        if event.event_type == "erase_user":
            profiles.pop(user_id, None)
            batch.append(pack_snapshot(erasure(event, 0)))
        else:
            profile = profiles.setdefault(user_id, Profile())
            outcome = apply_event(profile, event, options)
            batch.append(pack_snapshot(snapshot(profile, event, outcome, 0, options)))
        if len(batch) == _BATCH:
            send("snapshots", batch)
            batch = []
    send("snapshots", batch)
    send("profiles", [(user, pack_profile(profile)) for user, profile in profiles.items()])


def send_profiles(history: History, settings: "Settings") -> None:
    """Put the profiles on the topic of events; returns when the broker has them. Raises kafka.errors.KafkaError."""
    from kafka import KafkaProducer

    producer = KafkaProducer(**settings.kafka.python_client(), acks="all", linger_ms=20)
    run, now, failures = uuid4().hex, int(time.time() * 1000), list[BaseException]()
    for user, packed in history.profiles.items():
        message = {
            "event_id": f"bootstrap-{run}",
            "user_id": user,
            "event_type": "import_profile",
            "timestamp": now,
            "properties": {"profile": b64encode(packed).decode()},
        }
        future = producer.send(settings.kafka.events, msgspec.json.encode(message), key=user.encode())
        future.add_errback(failures.append)
    producer.flush()
    producer.close()
    if failures:
        raise failures[0]


def bootstrap(
    file: Annotated[Path, typer.Argument(exists=True, help="CSV or Parquet: user_id,item_id,event_type,timestamp")],
    model: Annotated[Path, typer.Option(help="Where to write the model, for `models.start_from`.")],
    config: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="The job's configuration.")] = None,
    send: Annotated[bool, typer.Option(help="Send the profiles to the topic of events.")] = True,
    as_json: Json = False,
) -> None:
    """Learn a history: its model into a file, its profiles to the job by the topic of events.

    Then submit the job with `models.start_from` set to the file. Profiles may come before, with or after the first live
    events: they are put under what is there.
    """
    from config.loading import SettingsError
    from jobs.settings import load_settings

    try:
        settings = load_settings(config)
    except SettingsError as error:
        progress.print(str(error), soft_wrap=True)
        raise typer.Exit(1) from None
    started = time.monotonic()
    with progress.status("Learning the history"):
        history = learn_history(file, model, settings)
    learned = time.monotonic() - started
    if send:
        from kafka.errors import KafkaError

        with progress.status("Sending the profiles"):
            try:
                send_profiles(history, settings)
            except KafkaError as error:
                progress.print(f"The profiles could not be sent: {error}", soft_wrap=True)
                raise typer.Exit(1) from None
    figures = {
        "events": history.events,
        "users": len(history.profiles),
        "seconds": time.monotonic() - started,
        "events_per_second_learned": history.events / learned,
    }
    if as_json:
        print(msgspec.json.encode(figures).decode())
        return
    console.print(
        f"{history.events:,} events of {len(history.profiles):,} users in {figures['seconds']:.1f} s. "
        f"The model is in {model}: submit the job with models.start_from.",
        soft_wrap=True,
    )


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(rich_help_panel="The job")(bootstrap)
