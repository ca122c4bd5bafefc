"""Linear item-to-item weights in closed form, kept up to date with every interaction and solved again as they grow.

Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (EASE), WWW 2019, equation 8. The Gram matrix is a
sum over interactions. Unlike there, two items of one person count the less the more others stand between them, by
(1+distance)^-pair_decay: a convex falling function of the distance, with which the matrix of whole histories without
repetitions is positive semidefinite (Polya's criterion).

Where more items are interacted with than a dense matrix has `slots` for, a sparse form takes over: each item is solved
for from its strongest neighbours alone, by ridge regression on the pair statistics of co-occurrence. Source: Ning and
Karypis, "SLIM", ICDM 2011, section 4.2 (an item's own feature selection by its nearest neighbours), with the squared
norm as the only penalty, so that each system has a closed form.
"""

import math
from dataclasses import dataclass

import msgspec
import numba
import numpy as np
import torch

from model import devices
from model.arrays import closed_up, grown, largest_of, moved, pack_array, unpack_array, unpack_tensor, used_slots
from model.batch import Batch, Rows, Weights
from model.cooccurrence import Cooccurrence


@dataclass(frozen=True)
class LinearItemModelOptions:
    """Dense for at most `slots` items: solved with `regularization` whenever the interactions have grown by `growth`
    and by one an item, and first after `first` of them. All items of a history say the same; with `pair_decay` 0 they
    are also learned alike. Above that sparse: an item is solved from at most `predictors` others whenever its
    interactions have grown by `item_growth`, and first after `item_first` of them. What is due is solved every `step`
    interactions, at most `step_items` items at a time."""

    slots: int = 2048
    regularization: float = 100.0
    pair_decay: float = 0.35
    growth: float = 0.1
    first: int = 1000
    predictors: int = 64
    item_growth: float = 1.0
    item_first: int = 4
    step: int = 256
    step_items: int = 64


class LinearItemModelDelta(msgspec.Struct, array_like=True):
    """Whether the model is `sparse`, and what was solved, if anything: each slot's item int64 [S] and the dense weights
    float32 [S, S]; or items int64 [n], their predictors int64 [n, P], -1 for none, and the weights float32 [n, P]."""

    sparse: bool
    items: bytes = b""
    weights: bytes = b""
    predictors: bytes = b""


class LinearItemModel:
    """Dense: `weights` float32 [S, S] are what having the item of the row says for the item of the column, and `items`
    int64 [S] are their rows in the item index. Sparse: `predictor_weights` float32 [N, P] are what having each of
    `predictors` int64 [N, P] (-1 for none) says for the item of the row. The Gram matrix float32 [slots, slots] and
    when an item is due exist on the learner only."""

    name = "linear"

    def __init__(self, options: LinearItemModelOptions, device: torch.device) -> None:
        self.options = options
        self.device = device
        self.sparse = False
        self.items = torch.empty(0, dtype=torch.int64, device=device)
        self.weights = torch.empty(0, 0, device=device)
        # Each item's slot in `weights`, -1 for none.
        self._slot = torch.empty(0, dtype=torch.int64, device=device)
        self.predictors = torch.empty(0, options.predictors, dtype=torch.int64, device=device)
        self.predictor_weights = torch.empty(0, options.predictors, device=device)
        self._gram = np.zeros((0, 0), np.float32)
        self._by_distance = np.empty(0, np.float32)
        # How many interactions were learned, and at how many the dense form is solved again; each item's, in the other.
        self._learned, self._due = 0, options.first
        self._item_due = np.zeros(0, np.float32)
        # The predictors turned round, on a CPU: for each item where it predicts, None where that must be built again.
        self._predicted: tuple[Rows, Rows, Weights] | None = None
        self._sums = devices.SumTable(device)
        # Solved since the last delta.
        self._solved = False
        self._solved_items: list[Rows] = []
        self._bind()

    def resize(self, items: int) -> None:
        """Make room for `items` items."""
        self._slot = grown(self._slot, items, -1)
        self._item_due = np.append(self._item_due, np.full(items - len(self._item_due), self.options.item_first, "f4"))
        if self.sparse:
            self.predictors = grown(self.predictors, items, -1)
            self.predictor_weights = grown(self.predictor_weights, items, 0)
        self._bind()

    def retain(self, rows: Rows) -> None:
        """Keep only these items, as rows 0, 1, 2."""
        places = moved(rows, len(self._slot))
        self._item_due = self._item_due[rows]
        slots = places[self.items.cpu().numpy()]
        held = torch.from_numpy(np.flatnonzero(slots >= 0)).to(self.device)
        self._slot = torch.full((len(rows),), -1, dtype=torch.int64, device=self.device)
        self._take(torch.from_numpy(slots[slots >= 0]), self.weights[held][:, held])
        if self.sparse:
            tables = self.predictors.cpu().numpy()[rows], self.predictor_weights.cpu().numpy()[rows]
            predictors, (weights,) = closed_up(places[tables[0]], tables[1])
            self.predictors = torch.from_numpy(predictors).to(self.device)
            self.predictor_weights = torch.from_numpy(weights).to(self.device)
        elif len(self._gram):
            # A catalogue may be larger than the dense form as long as nobody has taken what is beyond it.
            held_rows = rows[rows < len(self._gram)]
            gram = np.zeros_like(self._gram)
            gram[: len(held_rows), : len(held_rows)] = self._gram[np.ix_(held_rows, held_rows)]
            self._gram = gram
        self._bind()

    def _bind(self) -> None:
        """Name the CPU's tensors as arrays, once: doing so for each event would cost as much as the kernel."""
        if self.device.type == "cpu":
            self._arrays = (self._slot.numpy(), self.weights.numpy())
            self._sparse_arrays = (self.predictors.numpy(), self.predictor_weights.numpy())
            self._predicted = None

    @property
    def to_step(self) -> int:
        """How many interactions are missing to the next step: no batch may go on beyond it."""
        return self.options.step - self._learned % self.options.step

    def learn(self, batch: Batch, cooccurrence: Cooccurrence) -> None:
        """Count the interactions, and solve what is due where they complete a step. `cooccurrence` has learned the same
        interactions, and none after them."""
        # Few have so many items that it is worth a look which of them are taken.
        if not self.sparse and len(self._item_due) > self.options.slots <= batch.items.max(initial=-1):
            self._turn_sparse()
        if not self.sparse:
            if not len(self._gram):
                self._gram = np.zeros((self.options.slots, self.options.slots), np.float32)
            pair_weights = self._pair_weights(batch.items.shape[1])
            _count(batch.items, batch.event_index, batch.repeated, pair_weights, self._gram)
        taught = int(np.count_nonzero(batch.event_index >= 0))
        self._learned += taught
        if taught and self._learned % self.options.step == 0:
            if self.sparse:
                self._solve_items(cooccurrence)
            elif self._learned >= self._due:
                self._solve()

    def _turn_sparse(self) -> None:
        self.sparse = True
        self._gram = np.zeros((0, 0), np.float32)
        self._take(torch.empty(0, dtype=torch.int64), torch.empty(0, 0))
        self.resize(len(self._slot))

    def _pair_weights(self, length: int) -> Weights:
        """What a pair counts by its distance, 0 up to `length`."""
        if length >= len(self._by_distance):
            distances = np.arange(2 * length + 1, dtype=np.float32)
            self._by_distance = (1 + distances) ** np.float32(-self.options.pair_decay)
        return self._by_distance

    def _solve(self) -> None:
        """Equation 8: with P = (X'X + regularization * I)^-1, the weight from i to j is -P[i, j] / P[j, j]."""
        used = np.flatnonzero(self._gram.diagonal())
        # By one an item at least: a solution costs as much as the cube of the items.
        self._due = self._learned + max(round(self._learned * self.options.growth), len(used))
        gram = torch.from_numpy(self._gram[np.ix_(used, used)])
        gram.diagonal().add_(self.options.regularization)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed:
            # With histories that were cut off or are out of order the Gram matrix need not be positive definite. The
            # last solution stays.
            return
        inverse = torch.cholesky_inverse(factor)
        weights = inverse / -inverse.diagonal()
        weights.fill_diagonal_(0)
        self._take(torch.from_numpy(used), weights)
        self._solved = True

    def _take(self, items: torch.Tensor, weights: torch.Tensor) -> None:
        self.items, self.weights = items.to(self.device), weights.to(self.device).contiguous()
        self._slot.fill_(-1)
        self._slot[self.items] = torch.arange(len(items), device=self.device)
        self._bind()

    def _solve_items(self, cooccurrence: Cooccurrence) -> None:
        """Of each item that is due w = (G + regularization * I)^-1 g, with the pair statistics G among its predictors
        and g between them and it."""
        counts = cooccurrence.counts.numpy()
        items = largest_of(np.where(counts >= self._item_due, counts / self._item_due, 0), self.options.step_items)
        if not len(items):
            return
        self._item_due[items] = counts[items] * (1 + self.options.item_growth)
        tables = cooccurrence.neighbours.numpy(), cooccurrence.weights.numpy(), counts
        predictors, left, right = _systems(items, self.options.predictors, self.options.regularization, *tables)
        factors, failed = torch.linalg.cholesky_ex(torch.from_numpy(left))
        weights = torch.cholesky_solve(torch.from_numpy(right)[..., None], factors)[..., 0]
        # Interactions with an item again, and pairs that were pruned, can make statistics indefinite.
        solved = failed.numpy() == 0
        rows = torch.from_numpy(items[solved])
        self.predictors[rows] = torch.from_numpy(predictors[solved])
        self.predictor_weights[rows] = weights[torch.from_numpy(solved)]
        self._predicted = None
        self._solved_items.append(items[solved])

    def delta(self) -> LinearItemModelDelta:
        """What was solved since the last call."""
        solved, items = self._solved, self._solved_items
        self._solved, self._solved_items = False, []
        if self.sparse and items:
            rows = np.unique(np.concatenate(items))
            predictors, weights = (pack_array(table[rows]) for table in self._sparse_arrays)
            return LinearItemModelDelta(True, pack_array(rows), weights, predictors)
        if solved and not self.sparse:
            return LinearItemModelDelta(False, pack_array(self.items.numpy()), pack_array(self.weights.numpy()))
        return LinearItemModelDelta(self.sparse)

    def apply(self, delta: LinearItemModelDelta) -> None:
        """Follow the learner."""
        if delta.sparse and not self.sparse:
            self._turn_sparse()
        if not delta.items:
            return
        items = unpack_tensor(delta.items, np.int64, self.device)
        weights = unpack_tensor(delta.weights, np.float32, self.device).view(len(items), -1)
        if self.sparse:
            self.predictors[items] = unpack_tensor(delta.predictors, np.int64, self.device).view(weights.shape)
            self.predictor_weights[items] = weights
            self._predicted = None
        else:
            self._take(items, weights)

    def score(self, items: Rows, weights: Weights, out: devices.Table) -> None:
        """Writes scores float32 [B, N] to `out`, for histories `items` int64 [B, H] (-1 for none) with `weights`
        float32 [B, H]: 0 where an item is not solved for."""
        out[:] = 0
        if self.sparse and isinstance(out, np.ndarray):
            if self._predicted is None:
                self._predicted = _turn_round(*self._sparse_arrays)
            _add_predicted(items, weights, *self._predicted, out)
        elif self.sparse:
            self._score_sparse(items, weights, devices.as_tensor(out))
        else:
            devices.as_tensor(out)[:, self.items] = self._slot_query(items, weights) @ self.weights

    def _score_sparse(self, items: Rows, weights: Weights, out: torch.Tensor) -> None:
        """The torch version, for a GPU."""
        query = self._query(torch.from_numpy(items).to(self.device), weights, out.shape[1])
        for predictors, said in zip(self.predictors.T, self.predictor_weights.T, strict=True):
            out.addcmul_(query[:, predictors], said)

    def score_candidates(self, items: Rows, weights: Weights, candidates: Rows) -> Weights:
        """Scores float32 [B, C] of `candidates` int64 [B, C] for histories `items` int64 [B, H] with `weights` float32
        [B, H] (-1 for none in both): 0 where an item is not solved for."""
        if devices.read_by_numba(self.device):
            if self.sparse:
                return _score_sparse(items, weights, candidates, *self._sparse_arrays)
            return _score_candidates(items, weights, candidates, *self._arrays)
        return self._score_candidates(items, weights, candidates)

    def _score_candidates(self, items: Rows, weights: Weights, candidates: Rows) -> Weights:
        """The torch version, for a GPU."""
        asked = torch.from_numpy(candidates).to(self.device)
        if self.sparse:
            sources, of = torch.from_numpy(items).to(self.device).clamp(min=0), asked.clamp(min=0)
            said, predictors = torch.from_numpy(weights).to(self.device), self.predictors[of].clamp_(min=0)
            has = self._sums.read(len(self._slot), sources, said, predictors.flatten(1)).view(predictors.shape)
            return (has * self.predictor_weights[of]).sum(2).where(asked >= 0, 0).cpu().numpy()
        scores = torch.nn.functional.pad(self._slot_query(items, weights) @ self.weights, (0, 1))
        return scores.gather(1, self._slots_of(asked) % scores.shape[1]).cpu().numpy()

    def _query(self, rows: torch.Tensor, weights: Weights, size: int) -> torch.Tensor:
        """The weights by rows, float32 [B, size + 1]; the last column is 0 and stands for row -1."""
        query = torch.zeros(len(rows), size + 1, device=self.device)
        known = torch.from_numpy(weights).to(self.device).where(rows >= 0, 0)
        return query.scatter_add_(1, rows % query.shape[1], known)

    def _slot_query(self, items: Rows, weights: Weights) -> torch.Tensor:
        """The histories by slots, float32 [B, S]."""
        slots = self._slots_of(torch.from_numpy(items).to(self.device))
        return self._query(slots, weights, len(self.weights))[:, :-1]

    def _slots_of(self, items: torch.Tensor) -> torch.Tensor:
        return self._slot[items.clamp(min=0)].where(items >= 0, -1)

    def snapshot(self) -> dict[str, bytes]:
        """The parameters and the statistics as packed arrays: dense or sparse ones."""
        size = min(len(self._slot), len(self._gram))
        rows = np.flatnonzero((self.predictors[:, :1] >= 0).any(dim=1).cpu().numpy())
        return {
            "items": pack_array(self.items.cpu().numpy()),
            "weights": pack_array(self.weights.cpu().numpy()),
            "gram_by_row": pack_array(self._gram[:size, :size]),
            "learned": str(self._learned).encode(),
            "due": str(self._due).encode(),
            "sparse": b"1" if self.sparse else b"",
            "solved": pack_array(rows),
            "predictors": pack_array(self.predictors.cpu().numpy()[rows]),
            "predictor_weights": pack_array(self.predictor_weights.cpu().numpy()[rows]),
            "item_due": pack_array(self._item_due),
        }

    def load(self, arrays: dict[str, bytes]) -> None:
        """The inverse of `snapshot`, for every form that was ever written: at first the densest items of a larger
        catalogue held the rows of the Gram matrix, and there was no sparse form."""
        self._learned, self._due = int(arrays["learned"]), int(arrays["due"])
        held = unpack_array(arrays.get("held", b""), np.int64)
        sparse = bool(arrays.get("sparse")) or held.max(initial=-1) >= self.options.slots
        if "solved" in arrays and sparse:
            solved = arrays["solved"], arrays["predictor_weights"], arrays["predictors"]
            self._item_due = unpack_array(arrays["item_due"], np.float32)
            self.apply(LinearItemModelDelta(True, *solved))
        else:
            self.apply(LinearItemModelDelta(sparse, *(() if sparse else (arrays["items"], arrays["weights"]))))
        if sparse:
            return
        gram = unpack_array(arrays.get("gram_by_row") or arrays.get("gram", b""), np.float32)
        if len(gram):
            size = math.isqrt(len(gram))
            if "held" in arrays:
                slots = np.flatnonzero(held >= 0)
            else:
                held = slots = np.arange(size)
            self._gram = np.zeros((self.options.slots, self.options.slots), np.float32)
            self._gram[np.ix_(held[slots], held[slots])] = gram.reshape(size, size)[np.ix_(slots, slots)]


@numba.njit("(i8[:,:], i8[::1], b1[::1], f4[::1], f4[:,::1])", cache=True)
def _count(histories, at, repeated, pair_weights, gram):  # type: ignore[no-untyped-def]
    """Count each item that is new to its user, and its pairs with the user's others."""
    for n in range(len(histories)):
        if at[n] < 0 or repeated[n]:
            continue
        item = histories[n, at[n]]
        gram[item, item] += 1
        for column in range(histories.shape[1]):
            other = histories[n, column]
            if other >= 0 and other != item:
                weight = pair_weights[abs(column - at[n])]
                gram[item, other] += weight
                gram[other, item] += weight


@numba.njit(
    "Tuple((i8[:,::1], f4[:,:,::1], f4[:,::1]))(i8[::1], i8, f8, i4[:,::1], f4[:,::1], f4[::1])", cache=True, nogil=True
)
def _systems(items, size, regularization, neighbours, weights, counts):  # type: ignore[no-untyped-def]
    """For each item the `size` strongest of its neighbours, by weight over the root of their counts, -1 where there are
    no more, and the system of equations whose solution are their weights; those of none are 0."""
    predictors = np.full((len(items), size), -1, np.int64)
    left, right = np.zeros((len(items), size, size), np.float32), np.zeros((len(items), size), np.float32)
    place = np.full(len(counts), -1, np.int64)
    strength = np.empty(neighbours.shape[1], np.float32)
    for n in range(len(items)):
        row, used = neighbours[items[n]], 0
        while used < len(row) and row[used] >= 0:
            # A history may hold an item that was forgotten and is known again, which nobody has taken since.
            strength[used] = -weights[items[n], used] / np.sqrt(max(counts[row[used]], np.float32(1)))
            used += 1
        order = np.argsort(strength[:used], kind="mergesort")[:size]
        for p in range(len(order)):
            predictors[n, p] = row[order[p]]
            right[n, p] = weights[items[n], order[p]]
            place[row[order[p]]] = p
        for p in range(size):
            other = predictors[n, p]
            left[n, p, p] = 1 if other < 0 else counts[other] + regularization
            if other < 0:
                continue
            for slot in range(neighbours.shape[1]):
                if neighbours[other, slot] < 0:
                    break
                at = place[neighbours[other, slot]]
                if at >= 0 and at != p:
                    # Where one of two rows was pruned, the other knows more.
                    left[n, p, at] = left[n, at, p] = max(left[n, p, at], weights[other, slot])
        for p in range(len(order)):
            place[predictors[n, p]] = -1
    return predictors, left, right


@numba.njit("Tuple((i8[::1], i8[::1], f4[::1]))(i8[:,::1], f4[:,::1])", cache=True, nogil=True)
def _turn_round(predictors, table):  # type: ignore[no-untyped-def]
    """Of item i the places from `begins[i]` to `begins[i + 1]`: which items it predicts, and their weights."""
    begins = np.zeros(len(predictors) + 1, np.int64)
    for item in range(len(predictors)):
        for predictor in predictors[item]:
            if predictor < 0:
                break
            begins[predictor + 1] += 1
    begins = np.cumsum(begins)
    free = begins[:-1].copy()
    predicted, weights = np.empty(begins[-1], np.int64), np.empty(begins[-1], np.float32)
    for item in range(len(predictors)):
        for p in range(predictors.shape[1]):
            predictor = predictors[item, p]
            if predictor < 0:
                break
            predicted[free[predictor]], weights[free[predictor]] = item, table[item, p]
            free[predictor] += 1
    return begins, predicted, weights


@numba.njit("(i8[:,:], f4[:,:], i8[::1], i8[::1], f4[::1], f4[:,::1])", cache=True, nogil=True)
def _add_predicted(histories, confidence, begins, predicted, weights, out):  # type: ignore[no-untyped-def]
    for n in range(len(histories)):
        for column in range(histories.shape[1]):
            item = histories[n, column]
            if item >= 0:
                for place in range(begins[item], begins[item + 1]):
                    out[n, predicted[place]] += confidence[n, column] * weights[place]


@numba.njit("f4(f4[::1], i8[::1], f4[::1])", cache=True, nogil=True, fastmath=True)
def _sum_of(query, predictors, table):  # type: ignore[no-untyped-def]
    """The sum of a row."""
    whole = np.float32(0)
    for p in range(used_slots(predictors)):
        whole += query[np.uint64(predictors[p])] * table[p]
    return whole


@numba.njit("f4[:,::1](i8[:,:], f4[:,:], i8[:,:], i8[:,::1], f4[:,::1])", cache=True, nogil=True)
def _score_sparse(histories, weights, candidates, predictors, table):  # type: ignore[no-untyped-def]
    scores = np.zeros(candidates.shape, np.float32)
    query = np.zeros(len(predictors), np.float32)
    for n in range(len(histories)):
        for column in range(histories.shape[1]):
            if histories[n, column] >= 0:
                query[histories[n, column]] = weights[n, column]
        for c in range(candidates.shape[1]):
            if candidates[n, c] >= 0:
                scores[n, c] = _sum_of(query, predictors[candidates[n, c]], table[candidates[n, c]])
        for column in range(histories.shape[1]):
            if histories[n, column] >= 0:
                query[histories[n, column]] = 0
    return scores


@numba.njit("f4[:,::1](i8[:,:], f4[:,:], i8[:,:], i8[::1], f4[:,::1])", cache=True, nogil=True, fastmath=True)
def _score_candidates(histories, weights, candidates, slot_of, table):  # type: ignore[no-untyped-def]
    scores = np.zeros(candidates.shape, np.float32)
    asked = np.empty(candidates.shape[1], np.int64)
    for n in range(len(histories)):
        for c in range(len(asked)):
            asked[c] = slot_of[candidates[n, c]] if candidates[n, c] >= 0 else -1
        for column in range(histories.shape[1]):
            item = histories[n, column]
            if item >= 0 and slot_of[item] >= 0:
                row, weight = table[slot_of[item]], weights[n, column]
                for c in range(len(asked)):
                    if asked[c] >= 0:
                        scores[n, c] += row[asked[c]] * weight
    return scores
