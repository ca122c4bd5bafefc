"""Networks that read a person's sequence of items: causal self-attention, and the smaller recurrent one.

Sources: Kang, McAuley, "Self-attentive sequential recommendation", ICDM 2018 (SASRec), sections III.B and III.C, with
Shaw, Uszkoreit, Vaswani, "Self-attention with relative position representations", NAACL 2018, section 3.1, in place of
the absolute positions: how far back an item lies is a learned addition to its logit, which begins as that of 1/(1+n).
Hidasi, Karatzoglou, Baltrunas, Tikk, "Session-based recommendations with recurrent neural networks", ICLR 2016
(GRU4Rec), section 3.1.
"""

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Self-attention of one head over at most `history` items, and what is made of it at each place."""

    def __init__(self, dimensions: int, history: int, dropout: float) -> None:
        super().__init__()
        self._dropout = dropout
        self.distance = nn.Parameter(-torch.log1p(torch.arange(history)))
        self.before = nn.LayerNorm(dimensions)
        self.query, self.key, self.value, self.out = (nn.Linear(dimensions, dimensions, bias=False) for _ in range(4))
        self.between = nn.LayerNorm(dimensions)
        self.wide, self.narrow = nn.Linear(dimensions, 2 * dimensions), nn.Linear(2 * dimensions, dimensions)

    def forward(self, embedded: torch.Tensor, held: torch.Tensor, asked: int) -> torch.Tensor:
        """As of `Transformer`."""
        length, device = embedded.shape[1], embedded.device
        normal = self.before(embedded)
        back = torch.arange(length, device=device) - torch.arange(asked, device=device)[:, None]
        # One's own place is always seen: a row that sees nothing would be no number.
        seen = (held[:, None] & (back >= 0)) | (back == 0)
        logits = self.distance[back.clamp(min=0)].where(seen, -torch.inf)
        found = functional.scaled_dot_product_attention(
            self.query(normal[:, :asked]), self.key(normal), self.value(normal), attn_mask=logits
        )
        joined = embedded[:, :asked] + functional.dropout(self.out(found), self._dropout, self.training)
        deeper = self.narrow(functional.gelu(self.wide(self.between(joined))))
        return joined + functional.dropout(deeper, self._dropout, self.training)


class Transformer(nn.Module):
    """`blocks` of self-attention, one on another."""

    def __init__(self, dimensions: int, history: int, dropout: float, blocks: int) -> None:
        super().__init__()
        self._dropout = dropout
        self.blocks = nn.ModuleList(Block(dimensions, history, dropout) for _ in range(blocks))
        self.after = nn.LayerNorm(dimensions)

    def forward(self, embedded: torch.Tensor, held: torch.Tensor, asked: int) -> torch.Tensor:
        """What follows each of the `asked` newest of the items: float32 [B, asked, D] of `embedded` float32 [B, H, D],
        newest first, which count where they are `held` bool [B, H]. None is told of a newer one."""
        found = functional.dropout(embedded, self._dropout, self.training)
        *lower, last = self.blocks
        for block in lower:
            found = block(found, held, found.shape[1])
        return self.after(last(found, held, asked))


class Recurrent(nn.Module):
    """One layer of gated recurrent units, without biases: so what is before the oldest item leaves the state at 0. It
    reads a history of any length."""

    def __init__(self, dimensions: int, _history: int, dropout: float, _blocks: int) -> None:
        super().__init__()
        self._dropout = dropout
        self.cells = nn.GRU(dimensions, dimensions, bias=False, batch_first=True)
        self.after = nn.LayerNorm(dimensions)

    def forward(self, embedded: torch.Tensor, held: torch.Tensor, asked: int) -> torch.Tensor:
        """The same as of `Transformer`."""
        embedded = functional.dropout(embedded, self._dropout, self.training) * held[..., None]
        states, _ = self.cells(embedded.flip(1))
        return self.after(states.flip(1)[:, :asked])


NETWORKS: dict[str, type[Transformer] | type[Recurrent]] = {"transformer": Transformer, "gru": Recurrent}
