"""Lists whose items are less alike, at a price in accuracy.

Source: Carbonell, Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
summaries", SIGIR 1998 (maximal marginal relevance).
"""

import numba

from model.batch import Rows, Weights


def diversify(columns: Rows, chances: Weights, vectors: Weights, k: int, diversity: float) -> None:
    """Reorder the first k places of each row in place: one after another comes the item of the largest
    (1 - diversity) * chance / largest chance - diversity * largest cosine with an item that stands before it.

    `columns` int64 [B, C] are the candidates in their order, -1 where there are no more, with their `chances` float32
    [B, C]; `vectors` float32 [B, C, d] of length 1 or 0 belong to the places of that order.
    """
    _diversify(columns, chances, vectors, k, diversity)


@numba.njit("(i8[:,::1], f4[:,::1], f4[:,:,::1], i8, f8)", cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _diversify(columns, chances, vectors, k, diversity):  # type: ignore[no-untyped-def]
    for n in range(len(columns)):
        size = 0
        while size < columns.shape[1] and columns[n, size] >= 0:
            size += 1
        if size == 0:
            continue
        largest = chances[n, 0]
        alike = chances[n] * 0 - 1
        for place in range(min(k, size)):
            best, score = place, -2.0
            for other in range(place, size):
                value = (1 - diversity) * chances[n, other] / largest
                if place > 0:
                    value -= diversity * alike[other]
                if value > score:
                    best, score = other, value
            # What was passed over keeps its order behind the chosen one.
            column, chance, similar, vector = columns[n, best], chances[n, best], alike[best], vectors[n, best].copy()
            for other in range(best, place, -1):
                columns[n, other], chances[n, other] = columns[n, other - 1], chances[n, other - 1]
                alike[other] = alike[other - 1]
                vectors[n, other] = vectors[n, other - 1]
            columns[n, place], chances[n, place], alike[place], vectors[n, place] = column, chance, similar, vector
            for other in range(place + 1, size):
                cosine = vector[0] * 0
                for d in range(len(vector)):
                    cosine += vector[d] * vectors[n, other, d]
                alike[other] = max(alike[other], cosine)
