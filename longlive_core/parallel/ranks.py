"""The processes that share the work of one sequence, and each one's share of it. Integers only."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

SIZES = (1, 2, 4, 8)
"""The numbers of ranks that may share a sequence."""


@dataclass(slots=True)
class Traffic:
    """What a rank has sent to other ranks in exchanges and gathers: bytes, and the number of all-to-alls."""

    sent: int = 0
    exchanges: int = 0


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks of one dimension of a mesh, as one of them sees it.

    rank: the own one, 0 … size − 1. group: of torch.distributed; None for a single rank, which needs no such group.
    device: where the own tensors are, such as "cuda:1". traffic: is counted up by every exchange.
    """

    size: int = 1
    rank: int = 0
    group: ProcessGroup | None = None
    device: str = "cpu"
    traffic: Traffic = field(default_factory=Traffic, compare=False)

    def shares(self, count: int) -> tuple[int, ...]:
        """How many of `count` consecutive things each rank has: as equal as whole things can be, in rank order."""
        ends = [count * rank // self.size for rank in range(self.size + 1)]
        return tuple(end - start for start, end in pairwise(ends))

    def own(self, count: int) -> slice:
        """Which of `count` consecutive things are this rank's."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


ALONE = Ranks()
"""One process that shares its work with no other."""


def check_size(size: int, heads: int, tokens: int) -> None:
    """Raises ValueError, naming the nearest size that is allowed, unless `size` ranks can share a sequence.

    heads: of attention. tokens: of one latent frame. Each rank needs at least one of both.
    """
    fitting = [allowed for allowed in SIZES if allowed <= min(heads, tokens)]
    if size in fitting:
        return
    nearest = min(fitting, key=lambda allowed: (abs(allowed - size), allowed))
    raise ValueError(
        f"{size} ranks cannot share a model of {heads} heads and frames of {tokens} tokens: the sizes allowed are "
        f"{', '.join(map(str, fitting))}; the nearest is {nearest}"
    )
