"""`demo`: real ratings through a broker, Flink and the job on this machine, with live figures."""

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import webbrowser
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cli import article, movielens
from cli.common import DATA, Data, Json, console, progress
from cli.freshness import AppendedEvent, AppendedList, freshness, percentile, prequential
from deploy.local.stack import Stack, StackError
from deploy.local.topics import create_topics, default_topics
from schema.recommendation import is_default

K = 20
_START_S = 180.0
_TAIL_S = 3.0
_SHOWN_USERS, _SHOWN_ITEMS, _SHOWN_IDLE_MS = 3, 8, 5_000


class Observer:
    """What the topics hold, as the demo sees it: its own events once acknowledged, the lists, the dead letters."""

    def __init__(self, titles: dict[str, str]) -> None:
        self.events: list[AppendedEvent] = []
        self.lists: list[AppendedList] = []
        self.dead_letters = 0
        self.failure: BaseException | None = None
        self.list_seen_at = time.monotonic()
        self._titles = titles
        self._appended: dict[str, int] = {}
        self._lags: deque[int] = deque(maxlen=1000)
        self._shown: dict[str, AppendedList] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, bootstrap_servers: str) -> None:
        """Read `recommendations` and `dead-letters` from their beginning, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, args=(bootstrap_servers,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what was seen stays."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def check(self) -> None:
        """Raise StackError where the broker refused an event or the topics cannot be read."""
        if self.failure is not None:
            raise StackError(f"The demo lost the broker: {self.failure}") from self.failure

    def acknowledged(self, event: dict[str, Any], metadata: Any) -> None:
        """The broker appended the event; `metadata` has its time."""
        self._appended[event["event_id"]] = metadata.timestamp
        self.events.append(AppendedEvent(event["event_id"], event["user_id"], event["item_id"], metadata.timestamp))

    def failed(self, error: BaseException) -> None:
        """The broker did not take an event."""
        self.failure = error

    def received(self, user: str, value: bytes | None, appended_ms: int) -> None:
        """A record of `recommendations`."""
        message = msgspec.json.decode(value) if value else None
        published = AppendedList(
            user,
            message.get("event_id") if message else None,
            tuple(item["item_id"] for item in message["items"]) if message else None,
            appended_ms,
        )
        self.lists.append(published)
        self.list_seen_at = time.monotonic()
        if (start := self._appended.get(published.event_id or "")) is not None:
            self._lags.append(appended_ms - start)
        self._show(published)

    def render(self, bar: Progress, rate: float) -> Group:
        """The screen: progress, rate, freshness of the newest lists, some users' lists."""
        recent = list(self._lags)
        figures = Text(f"{rate:,.0f} events/s · {len(self.lists):,} lists · {self.dead_letters} dead letters")
        if recent:
            figures.append(f" · freshness p50 {percentile(recent, 0.5):.0f} ms, p99 {percentile(recent, 0.99):.0f} ms")
        shown = dict(self._shown)
        table = Table(*(f"User {user}" for user in shown), expand=True)
        for rank in range(_SHOWN_ITEMS if shown else 0):
            table.add_row(*(self._title(published, rank) for published in shown.values()))
        return Group(bar, figures, table)

    def _title(self, published: AppendedList, rank: int) -> Text:
        items = published.items or ()
        # Text, not markup: a title may hold brackets.
        return Text(self._titles.get(items[rank], items[rank]) if rank < len(items) else "")

    def _show(self, published: AppendedList) -> None:
        """Keep a few users on screen; one gives way only when idle, else the screen would flicker at 500 lists/s."""
        user = published.user_id
        if is_default(user):
            return
        if user not in self._shown and len(self._shown) >= _SHOWN_USERS:
            oldest = min(self._shown.values(), key=lambda other: other.appended_ms)
            if published.appended_ms - oldest.appended_ms < _SHOWN_IDLE_MS:
                return
            self._shown = {key: other for key, other in self._shown.items() if other is not oldest}
        self._shown = {**self._shown, user: published}

    def _run(self, bootstrap_servers: str) -> None:
        from kafka import KafkaConsumer

        try:
            consumer = KafkaConsumer(
                "recommendations",
                "dead-letters",
                bootstrap_servers=bootstrap_servers,
                group_id=None,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
            )
            try:
                while not self._stopped.is_set():
                    for partition, records in consumer.poll(timeout_ms=200).items():
                        for record in records:
                            if partition.topic == "dead-letters":
                                self.dead_letters += 1
                            else:
                                self.received(record.key.decode(), record.value, record.timestamp)
            finally:
                consumer.close()
        except Exception as error:  # whatever ends the thread must end the demo, not leave it waiting
            self.failure = error


class Run:
    """One demo on a stack that is up: its job, its feed, its figures."""

    def __init__(self, stack: Stack, events: list[dict[str, Any]], items: list[dict[str, Any]]) -> None:
        from kafka import KafkaProducer

        self.events = events
        self.warm_up = min(len(events) // 2, max(100, len(events) // 100))
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn(), expand=True
        )
        self.observer = Observer({item["item_id"]: item["title"] for item in items})
        self.address = ""
        self._task = self.bar.add_task("Events", total=len(events))
        self._stack = stack
        self._job = ""
        self._sent = 0
        self._fed_at = 0.0
        self._rate = 0.0
        self._producer = KafkaProducer(bootstrap_servers=stack.bootstrap_servers, acks="all", linger_ms=5)
        for item in items:
            key = item["item_id"].encode()
            self._producer.send("items", msgspec.json.encode(item), key=key).add_errback(self.observer.failed)
        self._producer.flush()

    def start(self, rate: float) -> None:
        """Submit the job, wait for all its tasks, then feed the first events and wait for their lists."""
        # Rated films never come back in this data, so a list that repeats them cannot hit.
        os.environ.setdefault("HEADRACE_LISTS__EXCLUDE", "seen")
        self._job = self._stack.submit(Path("jobs/recommend.py"))
        self.observer.start(self._stack.bootstrap_servers)
        self._until(self._tasks_run, "its tasks do not all run")
        self._feed(0, self.warm_up, rate)
        self._until(lambda: bool(self.observer.lists), "it publishes no list")
        self._settle()

    def feed(self, rate: float) -> None:
        """Feed the other events, and wait until no more lists arrive."""
        self._feed(self.warm_up, len(self.events), rate)
        self._settle()
        self._require_job()

    def render(self) -> Group:
        """The screen now."""
        return self.observer.render(self.bar, self._rate)

    def close(self) -> None:
        """Stop feeding and reading."""
        self.observer.stop()
        self._producer.close(timeout=5)

    def figures(self) -> dict[str, float]:
        """What the run showed. The warm-up counts in everything but rate and freshness."""
        events, lists = self.observer.events, self.observer.lists
        measured = events[self.warm_up :]
        seconds = 0.0
        if measured:
            last = max(measured[-1].appended_ms, lists[-1].appended_ms if lists else 0)
            seconds = (last - measured[0].appended_ms) / 1000
        p50, p99 = freshness(measured, lists)
        hit, ndcg = prequential(events, lists, K)
        return {
            "events_in": len(events),
            "lists_out": sum(published.items is not None for published in lists),
            "dead_letters": self.observer.dead_letters,
            "events_per_second": round(len(measured) / seconds, 1) if seconds else 0.0,
            "freshness_ms_p50": p50,
            "freshness_ms_p99": p99,
            f"hit@{K}": round(hit, 4),
            f"ndcg@{K}": round(ndcg, 4),
            "checkpoints_completed": self._stack.rest(f"/jobs/{self._job}/checkpoints")["counts"]["completed"],
        }

    def _feed(self, first: int, last: int, rate: float) -> None:
        started = time.monotonic()
        for count, event in enumerate(self.events[first:last], 1):
            future = self._producer.send("events", msgspec.json.encode(event), key=event["user_id"].encode())
            future.add_callback(partial(self.observer.acknowledged, event)).add_errback(self.observer.failed)
            self.bar.advance(self._task)
            if rate:
                time.sleep(max(0.0, started + count / rate - time.monotonic()))
            self._rate = count / max(time.monotonic() - started, 1e-3)
            self.observer.check()
        self._producer.flush()

    def _settle(self) -> None:
        since = time.monotonic()
        while time.monotonic() - max(since, self.observer.list_seen_at) < _TAIL_S:
            self.observer.check()
            time.sleep(0.1)

    def _tasks_run(self) -> bool:
        vertices = self._stack.rest(f"/jobs/{self._job}")["vertices"]
        return bool(vertices) and all(vertex["status"] == "RUNNING" for vertex in vertices)

    def _until(self, ready: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + _START_S
        while not ready():
            self.observer.check()
            self._require_job()
            if time.monotonic() > deadline:
                raise StackError(f"The job is not ready after {_START_S:.0f} s: {complaint}.{self._cause()}")
            time.sleep(0.2)

    def _require_job(self) -> None:
        state = self._stack.rest(f"/jobs/{self._job}")["state"]
        if state in ("FAILED", "CANCELED", "FINISHED"):
            raise StackError(f"The job has ended: {state}.{self._cause()}")

    def _cause(self) -> str:
        entries = self._stack.rest(f"/jobs/{self._job}/exceptions")["exceptionHistory"]["entries"]
        return f" Its newest failure:\n{entries[0]['stacktrace']}" if entries else ""


class Scenario(StrEnum):
    """What the demo plays."""

    movielens = "movielens"
    article = "article"


def demo(
    data: Data = DATA,
    scenario: Annotated[
        Scenario,
        typer.Option(help="Real film ratings, or an article's case: 1,000 people, 10,000 items, and a known truth."),
    ] = Scenario.movielens,
    events: Annotated[int, typer.Option(min=2, help="How many events to feed.")] = 20_000,
    rate: Annotated[float, typer.Option(min=0, help="Events per second; 0 for as fast as possible.")] = 500,
    headless: Annotated[
        bool, typer.Option("--headless", help="No page and no screen; end after the last list.")
    ] = False,
    json: Json = False,
) -> None:
    """Run everything on this machine on real film ratings, on a stack of its own, and show what comes out: on a page,
    whose address is printed, and on the screen. With the article's case also how well ratings are predicted, by a model
    beside the job, against the truth and the noise in them.

    The screen stays after the last event until Ctrl-C; with --headless the demo ends by itself. Either way it takes
    down all that it started. Where it fails, its data and logs stay and the folder is named.
    """
    # `kill` must take the stack down too, not leave it running without an owner.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    beside: dict[str, float] = {}
    with progress.status(scenario.value):
        if scenario is Scenario.article:
            # Lists are to hold what is liked, and not what is rated.
            os.environ.setdefault("HEADRACE_EVENTS__LIKED_FROM", str(article.LIKED_FROM))
            given = article.ratings(events)
            feed, items, beside = list(article.events(given)), list(article.catalogue()), article.figures(given)
        else:
            feed, items = list(islice(movielens.events(data), events)), list(movielens.items(data))
    runs = data / "demo"
    runs.mkdir(parents=True, exist_ok=True)
    # A new folder each time: fresh topics and state, and nothing of another demo is touched.
    stack = Stack(Path(tempfile.mkdtemp(prefix="run-", dir=runs)), jars=data / "jars")
    complete = False
    try:
        complete, figures = _run(stack, feed, items, rate, headless)
    except StackError as error:
        raise StackError(f"{error}\nLogs in {stack.logs}") from error
    finally:
        # An impatient second Ctrl-C must not leave half of the stack running.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        with progress.status("Stopping"):
            stack.down()
    shutil.rmtree(stack.data, ignore_errors=True)
    if figures:
        _print(figures | beside, json)
    if not complete:
        raise typer.Exit(130)


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(demo)


def _run(
    stack: Stack, events: list[dict[str, Any]], items: list[dict[str, Any]], rate: float, headless: bool
) -> tuple[bool, dict[str, float]]:
    """Whether all events were fed, and the figures; none where Ctrl-C came before the first list."""
    run = None
    fed = False
    try:
        with progress.status("Starting") as spinner:
            stack.up(
                kafka_port=0,
                flink_port=0,
                metrics_port=0,
                report=lambda what: spinner.update(f"Starting: {what}"),
            )
            spinner.update("Starting: topics")
            # The broker's own clock on both sides: freshness is then the difference of two of its appends.
            topics = {
                name: msgspec.structs.replace(topic, configs={"message.timestamp.type": "LogAppendTime"})
                for name, topic in default_topics().items()
            }
            create_topics(stack.bootstrap_servers, topics)
            run = Run(stack, events, items)
            spinner.update("Starting: the job and its first lists")
            run.start(rate)
            if not headless:
                spinner.update("Starting: the page")
                run.address = stack.serve()
        if run.address:
            progress.print(f"The page: {run.address}", soft_wrap=True)
            _open(run.address)
        if headless:
            progress.print(f"Feeding {len(events) - run.warm_up} events at {f'{rate:g}/s' if rate else 'full speed'}.")
        screen: AbstractContextManager[Any] = nullcontext()
        if not headless:
            screen = Live(get_renderable=run.render, console=progress, refresh_per_second=4)
        with screen:
            run.feed(rate)
            fed = True
            if not headless:
                progress.print(f"All events are fed. The page stays at {run.address}. Ctrl-C ends the demo.")
                while True:
                    time.sleep(1)
    except KeyboardInterrupt:
        progress.print("Interrupted: stopping." if not fed else "Stopping.")
    finally:
        if run is not None:
            run.close()
    return fed, run.figures() if run is not None and run.observer.lists else {}


def _open(address: str) -> None:
    # Not a browser of the terminal, which would take this one.
    if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)


def _print(figures: dict[str, float], json: bool) -> None:
    if json:
        # Not through rich: one line, unstyled; NaN becomes null.
        typer.echo(msgspec.json.encode(figures))
        return
    table = Table("Figure", "Value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.10g}")
    console.print(table)
