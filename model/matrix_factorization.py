"""Implicit-feedback matrix factorisation that follows the stream.

Source: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, equations 4 and 5.
User vectors are folded in from the history in closed form (eq. 4); item vectors get the same closed-form half-step
(eq. 5) over a reservoir of recent users' histories, for the items whose vectors are most out of date.
"""

from dataclasses import dataclass
from zlib import crc32

import msgspec
import numba
import numpy as np
import torch

from model import devices
from model.arrays import closed_up, grown, largest_of, moved, pack_array, unpack_array, unpack_tensor
from model.batch import Batch, Rows, Weights


@dataclass(frozen=True)
class MatrixFactorizationOptions:
    """`step` interactions make one step, in which at most `step_users` users and `step_items` items are solved, each
    item over at most `step_item_users` users of a reservoir of `reservoir` users. The loss is
    sum c (1 - xy)^2 + `unobserved` * sum over all (xy)^2 + `regularization` (|x|^2 + |y|^2). With `share_users` deltas
    tell of the reservoir's users too."""

    dimensions: int = 64
    history: int = 50
    query_history: int = 50
    query_decay: float = 1.0
    unobserved: float = 0.1
    regularization: float = 3.0
    reservoir: int = 4096
    step: int = 256
    step_users: int = 32
    step_items: int = 64
    step_item_users: int = 512
    seed: int = 1
    share_users: bool = False


class MatrixFactorizationDelta(msgspec.Struct, array_like=True):
    """The items int64 whose vectors changed, and the vectors float32 [n, dimensions]; the rows int64 of the reservoir
    whose users were folded in again, with their histories int64 [n, history] and vectors float32 [n, dimensions]."""

    items: bytes = b""
    vectors: bytes = b""
    users: bytes = b""
    histories: bytes = b""
    user_vectors: bytes = b""


class MatrixFactorization:
    """`vectors` float32 [N, dimensions]: the items. The reservoir and the open step exist on the learner only."""

    name = "factorization"

    def __init__(self, options: MatrixFactorizationOptions, device: torch.device) -> None:
        self.options = options
        self.device = device
        size = options.dimensions
        self.vectors = torch.empty(0, size, device=device)
        # Which of them the stream has moved.
        self.learned = torch.empty(0, dtype=torch.bool, device=device)
        self._identity = torch.eye(size, device=device)
        # Y'Y and X'X follow every change in float64; `_inverse` is (unobserved * Y'Y + regularization * I)^-1 as of the
        # last step.
        self._gram = torch.zeros(size, size, dtype=torch.float64, device=device)
        self._user_gram = np.zeros((size, size))
        self._inverse = self._identity / options.regularization
        self._decay = (1 + np.arange(options.query_history, dtype=np.float32)) ** np.float32(-options.query_decay)
        self._undecayed = np.ones(options.history, np.float32)
        # Row u of the reservoir: the newest history of the last user that falls there, and the folded-in vector.
        self._reservoir = np.full((options.reservoir, options.history), -1, np.int64)
        self._users = np.zeros((options.reservoir, size), np.float32)
        self._stale = np.zeros(0, np.float32)
        # An ordered set: the users of the open step, by their newest interaction.
        self._open_users: dict[int, None] = {}
        self._open = 0
        # The vectors of those whom the last batch had folded in, in that order.
        self.folded = np.zeros((0, size), np.float32)
        self._bind()

    def resize(self, items: int) -> None:
        """Make room for `items` rows; a new vector is small and depends on the seed and the row alone."""
        size = len(self.vectors)
        if items <= size:
            return
        self.vectors = grown(self.vectors, items, 0)
        self.learned = grown(self.learned, items, False)
        generator, fresh = torch.Generator(), torch.empty(items - size, self.options.dimensions)
        for n, row in enumerate(range(size, items)):
            generator.manual_seed(self.options.seed * 1_000_003 + row)
            fresh[n].normal_(generator=generator)
        self.vectors[size:] = 0.1 * fresh
        self._bind()
        self._stale = np.append(self._stale, np.zeros(items - size, np.float32))

    def learn(self, batch: Batch) -> MatrixFactorizationDelta:
        """Take the interactions one by one; every `step` of them item vectors move, wherever a batch is cut."""
        changed, folded = [], []
        self.folded = self.folded[:0]
        for n, at in enumerate(batch.event_index.tolist()):
            row = crc32(batch.users[n].encode()) % self.options.reservoir
            if batch.erased[n]:
                users = self._forget(row)
                folded.append((users, self._reservoir[users], self._users[users]))
            if at < 0:
                continue
            history = batch.items[n, : self.options.history]
            self._reservoir[row, : len(history)] = history
            self._reservoir[row, len(history) :] = -1
            self._open_users.pop(row, None)
            self._open_users[row] = None
            self._stale[batch.items[n, at]] += 1
            self._open += 1
            if self._open == self.options.step:
                items, users = self._step()
                changed.append(items)
                folded.append((users, self._reservoir[users], self._users[users]))
                self.folded = np.concatenate([self.folded, self._users[users]])
        if not changed and not (folded and self.options.share_users):
            return MatrixFactorizationDelta()
        items = np.unique(np.concatenate([np.empty(0, np.int64), *changed]))
        vectors = self.vectors[torch.from_numpy(items).to(self.device)]
        people = (np.concatenate(parts) for parts in zip(*folded, strict=True)) if self.options.share_users else ()
        return MatrixFactorizationDelta(*map(pack_array, (items, vectors.cpu().numpy(), *people)))

    def retain(self, rows: Rows) -> None:
        """Keep only these items, as rows 0, 1, 2."""
        self._reservoir, _ = closed_up(moved(rows, len(self.vectors))[self._reservoir])
        held = torch.from_numpy(rows).to(self.device)
        self.vectors, self.learned = self.vectors[held], self.learned[held]
        kept = self.vectors[self.learned].double()
        self._gram = kept.T @ kept
        self._stale = self._stale[rows]
        self._invert()
        self._bind()

    def forget_people(self) -> None:
        """Empty the reservoir. What follows the deltas of a learner does without."""
        self._reservoir[:], self._users[:] = -1, 0

    def _forget(self, row: int) -> Rows:
        """Empty a row of the reservoir. Item vectors keep what they have learned from it. Returns the row."""
        before = self._users[row].astype(np.float64)
        self._user_gram -= np.outer(before, before)
        self._users[row], self._reservoir[row] = 0, -1
        self._open_users.pop(row, None)
        return np.array([row])

    def _step(self) -> tuple[Rows, Rows]:
        """Refold the step's newest users, then solve the stalest items. Returns the items, ascending, and the rows of
        the users."""
        options = self.options
        users = np.array(list(self._open_users)[-options.step_users :], np.int64)
        self._open_users, self._open = {}, 0
        newest = self._reservoir[users]
        longest = int((newest >= 0).sum(axis=1).max())
        histories = newest[:, :longest]
        # Undecayed: what an item's vector learns from a user must not fade with the user's next steps.
        before = self._users[users].astype(np.float64)
        folded = self.fold_in(histories, (histories >= 0).astype(np.float32), self._undecayed)
        self._users[users] = devices.on_host(folded)
        after = self._users[users].astype(np.float64)
        self._user_gram += after.T @ after - before.T @ before
        items = largest_of(self._stale, options.step_items)
        self._stale[items] = 0
        # Items that wait grow staler, so that the tail gets its turn too.
        self._stale[self._stale > 0] += 1 / 64
        users_of = _rows_with(self._reservoir, items, len(self.vectors), options.step_item_users)
        prior = options.unobserved * self._user_gram + options.regularization * np.eye(options.dimensions)
        inverse = np.linalg.inv(prior).astype(np.float32)
        # An item is folded in from its users as a user is from their items: equation 5 is equation 4 mirrored.
        vectors = np.zeros((len(items), options.dimensions), np.float32)
        weights = (users_of >= 0).astype(np.float32)
        _fold_in(users_of, weights, np.ones(users_of.shape[1], np.float32), self._users, inverse, vectors)
        self._move(torch.from_numpy(items).to(self.device), torch.from_numpy(vectors).to(self.device))
        return items, users

    def _move(self, items: torch.Tensor, vectors: torch.Tensor) -> None:
        before, after = (self.vectors[items] * self.learned[items, None]).double(), vectors.double()
        self._gram += after.T @ after - before.T @ before
        self.vectors[items] = vectors
        self.learned[items] = True
        self._invert()

    def _invert(self) -> None:
        shared = self.options.unobserved * self._gram + self.options.regularization * self._identity
        self._inverse = torch.linalg.inv(shared).float().contiguous()
        self._bind()

    def _bind(self) -> None:
        """Name the CPU's tensors as arrays, once: doing so for each event would cost as much as the kernel."""
        if self.device.type == "cpu":
            self._arrays = (self.vectors.numpy(), self._inverse.numpy())
            self._learned = self.learned.numpy()

    def apply(self, delta: MatrixFactorizationDelta) -> None:
        """Follow the learner."""
        if delta.items:
            items = unpack_tensor(delta.items, np.int64, self.device)
            vectors = unpack_tensor(delta.vectors, np.float32, self.device)
            self._move(items, vectors.view(-1, self.options.dimensions))

    def fold_in(self, items: Rows, weights: Weights, decay: Weights) -> devices.Table:
        """User vectors float32 [B, dimensions] of histories `items` int64 [B, H] (-1 for none) with `weights` float32
        [B, H], 0 where there is none; the n-th item's confidence is its weight times `decay[n]`.

        Eq. 4, x = (A + V'CV)^-1 V'C1, in its dual form x = A^-1 V'D (I + D V A^-1 V' D)^-1 D1 with D = sqrt(C): systems
        of the history's size, and A, which all users share, is inverted once a step.
        """
        if devices.read_by_numba(self.device):
            users = np.zeros((len(items), self.options.dimensions), np.float32)
            _fold_in(items, weights, decay, *self._arrays, users)
            return users
        return self._fold_in(*(torch.from_numpy(array) for array in (items, weights, decay)))

    def _fold_in(self, items: torch.Tensor, weights: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
        """The torch version of `_fold_in`, for a GPU."""
        length = min(items.shape[1], len(decay))
        items, confidence = items[:, :length].to(self.device), (weights[:, :length] * decay[:length]).to(self.device)
        root = confidence.sqrt()[..., None]
        vectors = self.vectors[items.clamp(min=0)] * root
        projected = vectors @ self._inverse
        left = projected @ vectors.transpose(1, 2)
        left.diagonal(dim1=1, dim2=2).add_(1.0)
        return (projected.transpose(1, 2) @ _solve(left, root[..., 0])[..., None])[..., 0]

    def query(self, items: Rows, weights: Weights) -> devices.Table:
        """The vectors float32 [B, dimensions] of histories `items` int64 [B, H] (-1 for none) with `weights` float32
        [B, H], newest first. The confidence of an item falls with its place, so that the list follows the person's
        latest steps."""
        return self.fold_in(items, weights, self._decay)

    def score(self, queries: devices.Table, out: devices.Table) -> None:
        """Writes scores float32 [B, N] to `out`, for users' vectors float32 [B, dimensions]: 0 of items whose vectors
        are still those that they began with, which say nothing."""
        if isinstance(queries, np.ndarray) and len(queries) == 1:
            # For one person half of torch's time goes into finding out what is asked of it.
            _score_one(queries[0], self._arrays[0], self._learned, out[0])
            return
        scores = devices.as_tensor(out)
        torch.matmul(devices.as_tensor(queries), self.vectors.T, out=scores)
        scores.mul_(self.learned)

    def directions_of(self, items: Rows) -> Weights:
        """The vectors of `items` int64 [B, C] (-1 for none) at length 1, float32 [B, C, dimensions]."""
        vectors = self.vectors[torch.from_numpy(items).to(self.device).clamp(min=0)]
        return torch.nn.functional.normalize(vectors, dim=2).cpu().numpy()

    def snapshot(self) -> dict[str, bytes]:
        """The parameters, the reservoir and the open step as packed arrays."""
        return {
            "vectors": pack_array(self.vectors.cpu().numpy()),
            "learned": pack_array(self.learned.cpu().numpy()),
            "gram": pack_array(self._gram.cpu().numpy()),
            "inverse": pack_array(self._inverse.cpu().numpy()),
            "user_gram": pack_array(self._user_gram),
            "reservoir": pack_array(self._reservoir),
            "users": pack_array(self._users),
            "stale": pack_array(self._stale),
            "open_users": pack_array(np.array(list(self._open_users), np.int64)),
            "open": str(self._open).encode(),
        }

    def load(self, arrays: dict[str, bytes]) -> None:
        """The inverse of `snapshot`, for every form that was ever written: at first the Gram matrices did not stand in
        it, which follow from the vectors, nor which of these were learned: then all count."""
        self.vectors = unpack_tensor(arrays["vectors"], np.float32, self.device).view(-1, self.options.dimensions)
        learned = unpack_tensor(arrays.get("learned", b""), np.bool_, self.device)
        self.learned = learned if len(learned) else torch.ones(len(self.vectors), dtype=torch.bool, device=self.device)
        size = self.options.dimensions
        self._reservoir = unpack_array(arrays["reservoir"], np.int64).reshape(self._reservoir.shape)
        self._users = unpack_array(arrays["users"], np.float32).reshape(self._users.shape)
        if "gram" in arrays:
            self._gram = unpack_tensor(arrays["gram"], np.float64, self.device).view(size, size)
            self._inverse = unpack_tensor(arrays["inverse"], np.float32, self.device).view(size, size)
            self._user_gram = unpack_array(arrays["user_gram"], np.float64).reshape(size, size)
        else:
            vectors, users = self.vectors[self.learned].double(), self._users.astype(np.float64)
            self._gram, self._user_gram = vectors.T @ vectors, users.T @ users
            self._invert()
        self._stale = unpack_array(arrays["stale"], np.float32)
        self._open_users = dict.fromkeys(unpack_array(arrays["open_users"], np.int64).tolist())
        self._open = int(arrays["open"])
        self._bind()


def _solve(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Solve symmetric positive definite systems [B, d, d] x = [B, d]."""
    factor, _ = torch.linalg.cholesky_ex(left)
    return torch.cholesky_solve(right[..., None], factor)[..., 0]


@numba.njit(
    "(f4[::1], f4[:,::1], b1[::1], f4[::1])", cache=True, nogil=True, fastmath={"nnan", "nsz", "contract", "reassoc"}
)
def _score_one(query, vectors, learned, out):  # type: ignore[no-untyped-def]
    for item in range(len(vectors)):
        product = np.float32(0)
        if learned[item]:
            for d in range(len(query)):
                product += query[d] * vectors[item, d]
        out[item] = product


@numba.njit("i8[:,:](i8[:,::1], i8[::1], i8, i8)", cache=True, nogil=True)
def _rows_with(reservoir, items, total, limit):  # type: ignore[no-untyped-def]
    """For each item the first `limit` rows of the reservoir that hold it, -1 where there are no more."""
    place = np.full(total, -1, np.int64)
    place[items] = np.arange(len(items))
    rows, sizes = np.full((len(items), limit), -1, np.int64), np.zeros(len(items), np.int64)
    for row in range(len(reservoir)):
        for item in reservoir[row]:
            if item < 0:
                break
            n = place[item]
            if n >= 0 and sizes[n] < limit:
                rows[n, sizes[n]] = row
                sizes[n] += 1
    return rows[:, : sizes.max()]


@numba.njit("(i8[:,:], f4[:,:], f4[::1], f4[:,::1], f4[:,::1], f4[:,::1])", cache=True, nogil=True, fastmath=True)
def _fold_in(items, weights, decay, vectors, inverse, users):  # type: ignore[no-untyped-def]
    """The same row by row, its systems solved by conjugate gradients to the precision of float32. What all users share
    being inverted, the system is close to the identity: few iterations do, however long the history.

    Source: Takács, Pilászy, Tikk, "Applications of the conjugate gradient method for implicit feedback collaborative
    filtering", RecSys 2011.
    """
    size, length = vectors.shape[1], min(items.shape[1], len(decay))
    # Of the row's items the vectors times the roots of their confidences, one after another.
    scaled = np.empty((length, size), np.float32)
    residual, direction, image = np.empty((3, length), np.float32)
    combined, step = np.empty((2, size), np.float32)
    for n in range(items.shape[0]):
        count = 0
        error = np.float32(0)
        for column in range(length):
            item, confidence = items[n, column], weights[n, column] * decay[column]
            if item >= 0 and confidence > 0:
                root = np.sqrt(confidence)
                for j in range(size):
                    scaled[count, j] = root * vectors[item, j]
                residual[count] = direction[count] = root
                error += confidence
                count += 1
        enough = error * np.float32(1e-11)
        for _ in range(count):
            combined[:] = 0
            for i in range(count):
                along = direction[i]
                for j in range(size):
                    combined[j] += along * scaled[i, j]
            step[:] = 0
            for i in range(size):
                along = combined[i]
                for j in range(size):
                    step[j] += along * inverse[i, j]
            curvature = np.float32(0)
            for i in range(count):
                product = np.float32(0)
                for j in range(size):
                    product += scaled[i, j] * step[j]
                image[i] = direction[i] + product
                curvature += direction[i] * image[i]
            rate = error / curvature
            for j in range(size):
                users[n, j] += rate * step[j]
            before, error = error, np.float32(0)
            for i in range(count):
                residual[i] -= rate * image[i]
                error += residual[i] * residual[i]
            if error <= enough:
                break
            for i in range(count):
                direction[i] = residual[i] + error / before * direction[i]
