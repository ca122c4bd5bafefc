"""The sequence model: it finds an order that counts do not know, and learns the same however batches are cut."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import sequence_model
from model.arrays import pack_array
from model.batch import Batch, Rows, to_batch
from model.content import Content, ContentOptions
from model.item_index import ItemIndex
from model.sequence_model import SequenceDelta, SequenceModel, SequenceOptions, _adam, _contrast, log_sum_exp
from model.sequence_networks import NETWORKS
from model.snapshot import Snapshot

pytestmark = pytest.mark.unit
ITEMS, HISTORY = 9, 6
EVERY_NETWORK = [("transformer", 1), ("transformer", 2), ("gru", 1)]
SMALL = SequenceOptions(
    network="transformer",
    dimensions=8,
    history=HISTORY,
    reservoir=16,
    step=8,
    updates=2,
    fresh=4,
    replay=4,
    negatives=16,
    learning_rate=0.01,
)


def content_of(items: int = ITEMS, dimensions: int = 0) -> Content:
    """Content in which item n has the token n % 3, and the n-th unit vector for an embedding."""
    content = Content(ContentOptions(embeddings=(("e", dimensions),)))
    content.resize(items)
    tokens = [pack_array(np.array([item % 3], np.uint16)) for item in range(items)]
    vectors = map(pack_array, np.eye(items, max(dimensions, 1), dtype=np.float32)[:, :dimensions])
    content.follow(range(items), tokens, vectors)
    return content


def model_of(options: SequenceOptions = SMALL, items: int = ITEMS) -> SequenceModel:
    model = SequenceModel(options, torch.device("cpu"))
    model.resize(items)
    # All items are there before the first event.
    model.learn(batch_of([]), content_of(items), train=True)
    return model


def batch_of(pairs: list[tuple[int, int]]) -> Batch:
    """One row for each (user, item), after the user's earlier ones."""
    index = ItemIndex(map(str, range(ITEMS)))
    histories: dict[int, list[str]] = {}
    taken = []
    for user, item in pairs:
        before = [other for other in histories.get(user, []) if other != str(item)]
        histories[user] = history = [str(item), *before]
        gaps = bytes(range(len(history), 0, -1))
        taken.append(Snapshot(f"u{user}", "e", 0, 0, history, [1.0] * len(history), 0, gaps=gaps))
    return to_batch(taken, index, learn=True)


def rows_of(batch: Batch, places: slice) -> Batch:
    return Batch(**{name: getattr(batch, name)[places] for name in Batch.__struct_fields__})


def scores(model: SequenceModel, content: Content, *histories: list[int]) -> np.ndarray:
    """What the model gives every item after each history."""
    items = np.full((len(histories), HISTORY), -1)
    for row, history in enumerate(histories):
        items[row, : len(history)] = history
    none = np.zeros(items.shape, np.uint8)
    queries = model.query(items, none, none, content)
    return model.score_candidates(queries, np.tile(np.arange(ITEMS), (len(items), 1)), content)


def walks(people: int, length: int) -> list[tuple[int, int]]:
    """People who go through the items in a circle, each from another place on."""
    return [(user, (user + step) % ITEMS) for step in range(length) for user in range(people)]


@pytest.mark.parametrize("negatives", [16, 4], ids=["all items", "some items"])
@pytest.mark.parametrize(("network", "blocks"), EVERY_NETWORK)
def test_it_learns_an_order_that_counts_do_not_know(network: str, blocks: int, negatives: int) -> None:
    options = replace(SMALL, network=network, blocks=blocks, negatives=negatives, ahead=1, dropout=0.0, updates=8)
    model, content = model_of(options), content_of()
    for _ in range(12):
        model.learn(batch_of(walks(9, 6)), content, train=True)
    histories = [[(item - back) % ITEMS for back in range(4)] for item in range(ITEMS)]
    assert scores(model, content, *histories).argmax(1).tolist() == [(item + 1) % ITEMS for item in range(ITEMS)]


# What can be switched on, all of it.
SWITCHED_ON = {"trunk_every": 3, "gated": True, "contrast": 0.3, "relation_pull": 0.1, "balance": 0.5}
PAIRS = np.array([[0, 8], [3, 5]])
events = st.lists(st.tuples(st.integers(0, 5), st.integers(0, ITEMS - 1)), min_size=20, max_size=80)


@settings(max_examples=25, deadline=None)
@given(
    events,
    st.lists(st.integers(0, 80), max_size=5),
    st.sampled_from([(16, 0), (4, 3)]),
    st.sampled_from([{}, SWITCHED_ON]),
)
def test_wherever_batches_are_cut_a_replica_and_what_was_packed_agree(
    pairs: list[tuple[int, int]], cuts: list[int], sizes: tuple[int, int], switches: dict[str, Any]
) -> None:
    parts = (1, 2) if sizes[1] else ()
    options = replace(SMALL, negatives=sizes[0], embedding_dimensions=parts, **switches)
    content, batch = content_of(dimensions=sizes[1]), batch_of(pairs)
    whole, cut, replica = model_of(options), model_of(options), model_of(options)
    whole.learn(batch, content, True, lambda: PAIRS)
    for begin, end in pairwise([0, *sorted(min(cut, len(pairs)) for cut in cuts), len(pairs)]):
        delta = cut.learn(rows_of(batch, slice(begin, end)), content, True, lambda: PAIRS)
        replica.apply(msgspec.msgpack.decode(msgspec.msgpack.encode(delta), type=SequenceDelta))
        restored = model_of(options)
        restored.load(cut.snapshot())
        cut = restored
    assert whole.updates == cut.updates
    queries = [[], [1], [2, 5, 7], [0, 1, 2, 3, 4, 5]]
    expected = scores(whole, content, *queries)
    assert expected.any() == (whole.updates > 0)
    for other in (cut, replica):
        np.testing.assert_allclose(scores(other, content, *queries), expected, atol=1e-6)
    # What a replica begins with knows nobody, and no more than it needs.
    packed, begun = whole.snapshot(learning=False), model_of(options)
    assert not {"histories", "types", "gaps", "open_people", "weight_moments"} & set(packed)
    begun.load(packed)
    np.testing.assert_allclose(scores(begun, content, *queries), expected, atol=1e-6)
    for row, query in enumerate(queries):
        np.testing.assert_allclose(scores(whole, content, query)[0], expected[row], atol=1e-5)


@pytest.mark.parametrize(("network", "blocks"), EVERY_NETWORK)
def test_no_place_is_told_of_a_newer_one_nor_of_what_is_not_held(network: str, blocks: int) -> None:
    torch.manual_seed(1)
    read = NETWORKS[network](4, HISTORY, 0.5, blocks).eval()
    embedded, held = torch.randn(2, HISTORY, 4), torch.arange(HISTORY) < torch.tensor([[HISTORY], [3]])
    embedded = embedded * held[..., None]
    found = read(embedded, held, HISTORY)
    torch.testing.assert_close(read(embedded, held, 1), found[:, :1])
    torch.testing.assert_close(read(embedded[1:, :3], held[1:, :3], 3), found[1:, :3])
    # The oldest two alone are what those places know of.
    torch.testing.assert_close(read(embedded[:1, -2:], held[:1, -2:], 2), found[:1, -2:])


def test_what_is_learned_of_a_token_holds_for_an_item_that_nobody_took() -> None:
    # Items 0 to 5 are taken, by people who stay with one token; 6, 7 and 8 have the tokens 0, 1 and 2.
    pairs = [(user, (user % 3) + 3 * (step % 2)) for step in range(6) for user in range(9)]
    model, content = model_of(replace(SMALL, updates=8, dropout=0.0)), content_of()
    for _ in range(8):
        model.learn(batch_of(pairs), content, train=True)
    found = scores(model, content, [0, 3], [1, 4], [2, 5])[:, 6:]
    assert found.argmax(1).tolist() == [0, 1, 2]
    content.follow([6], [pack_array(np.array([1], np.uint16))], [b""])
    model.changed(np.array([6]))
    again = scores(model, content, [1, 4])[0]
    assert again[6] > found[1, 0]
    assert again[6] > again[8]


def test_an_item_behind_gates_is_the_same_to_learner_and_scorer() -> None:
    content, options = content_of(dimensions=4), replace(SMALL, embedding_dimensions=(1, 3), gated=True, updates=8)
    model = model_of(options)
    rows = np.arange(ITEMS)
    for _ in range(4):
        model.learn(batch_of(walks(9, 6)), content, train=True)
    vectors, _ = model._composed_of(rows, content)
    ungated = model_of(replace(options, gated=False))
    ungated._network.get_parameter("projection").data.copy_(model._network.get_parameter("projection"))
    ungated.items.vectors[:], ungated.tokens.vectors[:] = model.items.vectors, model.tokens.vectors
    assert not torch.allclose(vectors, ungated._composed_of(rows, content)[0], atol=1e-3)
    with torch.no_grad():
        model._network.get_parameter("gates").zero_()
    torch.testing.assert_close(model._composed_of(rows, content)[0], ungated._composed_of(rows, content)[0])
    # The kernel and torch make the same of an item.
    for one in (model, ungated):
        one._version += 1
        one._compose(rows, content)
        np.testing.assert_allclose(one._composed, one._composed_of(rows, content)[0].detach(), atol=1e-5)


def test_related_items_are_drawn_to_each_other() -> None:
    batch, distances = batch_of(walks(9, 6)), []
    for pull in (0.0, 1.0):
        model, content = model_of(replace(SMALL, relation_pull=pull, updates=8)), content_of()
        for _ in range(3):
            model.learn(batch, content, True, lambda: PAIRS)
        vectors, _ = model._composed_of(np.arange(ITEMS), content)
        distances.append((vectors[PAIRS[:, 0]] - vectors[PAIRS[:, 1]]).norm().item())
    assert distances[1] < distances[0] / 2


def test_two_views_of_one_history_come_closer_than_those_of_others() -> None:
    one, other = torch.eye(4), torch.eye(4).roll(1, 0)
    assert _contrast(one, one) < 0.1 < 1 < _contrast(one, other)
    assert _contrast(one, one) == pytest.approx(math.log(1 + 3 * math.exp(-1 / 0.2)), rel=1e-4)
    model = model_of(replace(SMALL, contrast=1.0, masked=0.5))
    held = torch.arange(40)[None] < torch.tensor([[40], [7]])
    first, second = model._views(held)
    assert not (first & ~held).any()
    assert not (second & ~held).any()
    assert not torch.equal(first, second)
    assert 8 < int(first[0].sum()) < 32


def test_people_of_rare_kinds_are_replayed_more_often() -> None:
    # Of 12 people one took an item of the first kind last, the others of the second.
    pairs = [(user, item) for user in range(12) for item in (2, 0 if user == 5 else 1)]
    rows = {user: crc32(f"u{user}".encode()) % 512 for user in range(12)}
    drawn = {}
    for balance in (0.0, 1.0):
        model, content = model_of(replace(SMALL, reservoir=512, fresh=0, balance=balance)), content_of()
        model.learn(batch_of(pairs), content, train=False)
        chances = [np.random.default_rng(seed) for seed in range(300)]
        drawn[balance] = sum(rows[5] in model._drawn(chance, content) for chance in chances)
    assert 60 < drawn[0.0] < 140 < 200 < drawn[1.0]


@pytest.mark.parametrize("queries", [0, 1, 5])
def test_the_sum_over_all_items_and_its_gradient_are_those_of_all_at_once(
    queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence_model, "_AT_ONCE", 2)
    torch.manual_seed(1)
    given, items = torch.randn(queries, 3, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    at_once = (given @ items[:, :-1].T + items[:, -1]).logsumexp(1)
    torch.testing.assert_close(log_sum_exp(given, items), at_once)
    # What is large neither overflows nor is lost.
    torch.testing.assert_close(
        log_sum_exp(1e4 * given, items), (1e4 * given @ items[:, :-1].T + items[:, -1]).logsumexp(1)
    )
    if queries:
        assert torch.autograd.gradcheck(log_sum_exp, (given.requires_grad_(), items.requires_grad_()))


def test_the_step_is_that_of_adam() -> None:
    torch.manual_seed(1)
    weights = torch.randn(5, requires_grad=True)
    ours, moments = weights.detach().clone(), torch.zeros(2, 5)
    reference = torch.optim.Adam([weights], lr=0.1, betas=(0.9, 0.98))
    for update in range(1, 6):
        weights.grad = torch.randn(5)
        ours -= _adam(*moments, weights.grad, 0.1, update)
        reference.step()
    torch.testing.assert_close(ours, weights.detach())


def test_the_trunk_moves_more_seldom_than_what_stands_for_items() -> None:
    model, content = model_of(replace(SMALL, trunk_every=3)), content_of()
    moved = []
    for n in range(5):
        before = model._weights.clone(), model.items.vectors.clone()
        # A step and its two updates.
        delta = model.learn(batch_of(walks(2, 4)), content, True)
        assert model.updates == 2 * (n + 1)
        assert not model.items.vectors.equal(before[1])
        assert bool(delta.items)
        moved.append(not model._weights.equal(before[0]))
        assert bool(delta.weights) == moved[-1]
    # At updates 3, 6 and 9.
    assert moved == [False, True, True, False, True]


def test_an_erased_person_is_no_longer_learned_from_and_forgotten_items_leave_histories() -> None:
    model, content = model_of(), content_of()
    model.learn(batch_of([(1, 3), (1, 4), (1, 5), (2, 3)]), content, train=True)
    row = crc32(b"u1") % SMALL.reservoir
    assert model._histories[row].tolist() == [5, 4, 3, -1, -1, -1, -1]
    model.retain(np.array([3, 5]))
    assert model._histories[row].tolist() == [1, 0, -1, -1, -1, -1, -1]
    erased = Snapshot("u1", "e", 0, 0, [], [], erased=True)
    model.learn(to_batch([erased], ItemIndex(), learn=True), content, train=True)
    assert (model._histories[row] == -1).all()
    assert not model._types[row].any()
    assert not model._gaps[row].any()
    assert len(model.items.vectors) == 2


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    model, content = model_of(), content_of()
    model.learn(batch_of(walks(4, 2)), content, train=True)
    before = model._weights.clone()
    model.items.vectors[3] = torch.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        model.learn(batch_of(walks(4, 4)), content, train=True)
    torch.testing.assert_close(model._weights, before)


def test_state_of_other_options_is_not_taken_and_without_a_network_there_is_nothing() -> None:
    model, content = model_of(), content_of()
    model.learn(batch_of(walks(4, 4)), content, train=True)
    other = model_of(replace(SMALL, dimensions=4))
    other.load(model.snapshot())
    assert other.updates == 0
    assert not scores(other, content, [1, 2]).any()
    nothing = model_of(SequenceOptions())
    assert nothing.learn(batch_of(walks(40, 8)), content, train=True) == SequenceDelta()
    assert nothing.snapshot() == {}
    nothing.load(model.snapshot())
    nothing.retain(np.array([1]))
    assert not scores(nothing, content, [1, 2]).any()


def test_without_training_it_only_takes_note() -> None:
    model, content = model_of(), content_of()
    assert model.learn(batch_of(walks(4, 4)), content, train=False) == SequenceDelta()
    assert model.updates == 0
    row: Rows = model._histories[crc32(b"u2") % SMALL.reservoir]
    assert row[:4].tolist() == [5, 4, 3, 2]


def test_the_likeliest_items_are_those_of_the_best_scores_that_nothing_bars() -> None:
    content, model = content_of(), model_of(replace(SMALL, candidates=3))
    model.learn(batch_of(walks(4, 20)), content, train=True)
    items = np.array([[4, 3, -1, -1, -1, -1], [-1] * HISTORY, [7, -1, -1, -1, -1, -1]])
    none = np.zeros(items.shape, np.uint8)
    queries = model.query(items, none, none, content)
    among, barred, bounds = np.array([0, 2, 4, 5, 6, 8]), np.array([5, 1, -1]), np.array([0, 2, 2, 3])
    found = model.likeliest(queries, among, items, barred, bounds, content)
    every = model.score_candidates(queries, np.tile(np.arange(ITEMS), (len(items), 1)), content)
    for row, allowed in ((0, [0, 2, 6, 8]), (2, [0, 2, 4, 5, 6, 8])):
        best = sorted(allowed, key=lambda item: -every[row, item])[:3]
        assert sorted(found[row].tolist()) == sorted(best)
    # Of who has no history nothing is known.
    assert found[1].tolist() == [-1, -1, -1]
    few = model.likeliest(queries, np.array([3, 6]), items, barred, bounds, content)
    assert sorted(few[0].tolist()) == [-1, 6]
