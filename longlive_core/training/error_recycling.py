"""Error recycling: a model trains on inputs that carry its own errors of earlier steps.

As in LongLive 2.0, after Stable Video Infinity (Li et al. 2025, arXiv 2510.09212). Two buffers keep the errors of
single blocks by noise level, one in clean latents and one in noise. A step draws from them, in this order:

    noise      += error of the noise buffer at the block's noise level     in the noisy latents and in the target
    latents    += error of the latent buffer at the block's noise level    in the noisy latents only
    context    += error of the latent buffer at any noise level            in the clean latents that later blocks attend

All draws come from a `random.Random` that the caller passes in, in the order of the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random

from torch import Tensor


@dataclass(frozen=True, slots=True)
class ErrorRecyclingSettings:
    """Settings of error recycling. The defaults are those of LongLive 2.0.

    clean: probability of a step without any injected error. noise, latent, context: probability of each injection in
    the other steps. store_clean: probability that the errors of a clean step are stored. modulation: each error is
    scaled by a random factor within 1 ± modulation. buckets: number of ranges of noise levels. entries: errors of
    single blocks in each bucket. timesteps: number of entries of the timestep table. Raises ValueError for
    probabilities outside 0 … 1 and for buckets that do not split the table.
    """

    clean: float = 0.2
    noise: float = 0.01
    latent: float = 0.9
    context: float = 0.9
    store_clean: float = 0.1
    modulation: float = 0.3
    buckets: int = 50
    entries: int = 500
    timesteps: int = 1000

    def __post_init__(self) -> None:
        for name in ("clean", "noise", "latent", "context", "store_clean"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"error recycling: probability {name} = {getattr(self, name)} is outside 0 … 1")
        if self.buckets < 1 or self.timesteps % self.buckets:
            raise ValueError(f"error recycling: {self.buckets} buckets do not split {self.timesteps} timesteps evenly")
        if self.entries < 1:
            raise ValueError(f"error recycling: a bucket holds at least one error, not {self.entries}")


class ErrorBuffer:
    """Errors of single blocks, `[C, n, H, W]` each, in buckets by index of the timestep table. On the CPU.

    shard, shards: of several ranks that share the buckets, rank `shard` holds those with bucket % shards == shard.
    Errors of other buckets are dropped, and reads go to the nearest bucket that the rank holds.
    """

    def __init__(self, settings: ErrorRecyclingSettings, shard: int = 0, shards: int = 1) -> None:
        if not 0 <= shard < shards <= settings.buckets:
            raise ValueError(f"rank {shard} of {shards} cannot hold a share of {settings.buckets} buckets")
        self.settings, self.shard, self.shards = settings, shard, shards
        self._buckets: tuple[list[Tensor], ...] = tuple([] for _ in range(settings.buckets))

    def __len__(self) -> int:
        """Number of stored errors."""
        return sum(len(bucket) for bucket in self._buckets)

    def bucket(self, index: int) -> int:
        """Bucket of a table index. Raises ValueError outside the table."""
        if not 0 <= index < self.settings.timesteps:
            raise ValueError(f"timestep index {index} is outside 0 … {self.settings.timesteps - 1}")
        return index * self.settings.buckets // self.settings.timesteps

    def bucket_read(self, bucket: int) -> int:
        """The bucket that this rank reads instead of `bucket`: the nearest of its own, of two the higher one."""
        own = range(self.shard, self.settings.buckets, self.shards)
        return min(own, key=lambda other: (abs(other - bucket), -other))

    def errors(self, bucket: int) -> tuple[Tensor, ...]:
        """The errors in a bucket, in the order in which they were stored or replaced."""
        return tuple(self._buckets[bucket])

    def add(self, index: int, error: Tensor, rng: Random) -> None:
        """Stores an error of a block at a table index. In a full bucket it replaces a random one."""
        number = self.bucket(index)
        if number % self.shards != self.shard:
            return
        # A copy, because a slice would keep the errors of the whole batch in memory.
        error, bucket = error.detach().to("cpu", copy=True), self._buckets[number]
        if len(bucket) < self.settings.entries:
            bucket.append(error)
        else:
            bucket[rng.randint(0, len(bucket) - 1)] = error

    def sample(self, index: int, rng: Random) -> Tensor | None:
        """A random error at the noise level of a table index, scaled; None, without a draw, if the bucket is empty."""
        return self._scaled(self._buckets[self.bucket_read(self.bucket(index))], rng)

    def sample_any(self, rng: Random) -> Tensor | None:
        """A random one of all errors, scaled; None if there are none."""
        return self._scaled([error for bucket in self._buckets for error in bucket], rng)

    def state_dict(self) -> dict[str, Tensor]:
        """The errors by "bucket.number". They are the stored tensors themselves, which are never changed in place."""
        return {f"{b}.{n}": error for b, bucket in enumerate(self._buckets) for n, error in enumerate(bucket)}

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        """Replaces all errors. Raises ValueError if they do not fit the settings, and then changes nothing."""
        buckets: tuple[list[Tensor], ...] = tuple([] for _ in self._buckets)
        for number, _, name in sorted((*_numbers(name), name) for name in state):
            if number >= len(buckets) or number % self.shards != self.shard:
                raise ValueError(f"the checkpoint has errors of bucket {number}, which this run does not hold")
            buckets[number].append(state[name].to("cpu"))
        longest, entries = max(len(bucket) for bucket in buckets), self.settings.entries
        if longest > entries:
            raise ValueError(f"the checkpoint has {longest} errors in a bucket, but `entries` is {entries}")
        self._buckets = buckets

    def _scaled(self, errors: list[Tensor], rng: Random) -> Tensor | None:
        if not errors:
            return None
        error, modulation = rng.choice(errors), self.settings.modulation
        return error * rng.uniform(1 - modulation, 1 + modulation)


@dataclass(frozen=True, slots=True)
class Injected:
    """The inputs of a step after injection, `[B, C, F, H, W]` each; see the module's table.

    clean_step: whether the step is one without injected errors. injections: names of the injections that took place.
    """

    noise: Tensor
    latents: Tensor
    context: Tensor
    clean_step: bool = False
    injections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockErrors:
    """Errors of one block: its table index, and its errors in latents and in noise, `[C, n, H, W]` each."""

    index: int
    latent: Tensor
    noise: Tensor


class ErrorBuffers:
    """The buffers of errors in latents and in noise. See the module's docstring."""

    def __init__(self, settings: ErrorRecyclingSettings, shard: int = 0, shards: int = 1) -> None:
        self.settings = settings
        self.latent = ErrorBuffer(settings, shard, shards)
        self.noise = ErrorBuffer(settings, shard, shards)

    def inject(self, clean: Tensor, noise: Tensor, context: Tensor, block_indices: Tensor, rng: Random) -> Injected:
        """Adds stored errors to the inputs of a step, which stay unchanged.

        clean, noise, context: `[B, C, F, H, W]`. block_indices: table index of each block, `[B, blocks]`. Every block
        gets an error of its own; a block whose bucket is empty gets none.
        """
        settings, indices = self.settings, block_indices.tolist()
        if _happens(settings.clean, rng):
            return Injected(noise, clean, context, clean_step=True)
        done: list[str] = []

        def inject(name: str, x: Tensor, buffer: ErrorBuffer, sample: Callable[[int], Tensor | None]) -> Tensor:
            if not len(buffer) or not _happens(getattr(settings, name), rng):
                return x
            done.append(name)
            return _with_errors(x, indices, sample)

        noise = inject("noise", noise, self.noise, lambda index: self.noise.sample(index, rng))
        latents = inject("latent", clean, self.latent, lambda index: self.latent.sample(index, rng))
        context = inject("context", context, self.latent, lambda _: self.latent.sample_any(rng))
        return Injected(noise, latents, context, injections=tuple(done))

    def should_store(self, clean_step: bool, rng: Random) -> bool:
        """Whether to store the errors of a step: always, or after a clean step with the probability `store_clean`."""
        return not clean_step or rng.random() < self.settings.store_clean

    def store(self, errors: Iterable[BlockErrors], rng: Random) -> None:
        """Stores the errors of a step: first all those in latents, then all those in noise."""
        errors = tuple(errors)
        for error in errors:
            self.latent.add(error.index, error.latent, rng)
        for error in errors:
            self.noise.add(error.index, error.noise, rng)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Both buffers, for a checkpoint."""
        return {"latent": self.latent.state_dict(), "noise": self.noise.state_dict()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]], /) -> None:
        """Replaces all errors. Raises ValueError if they do not fit the settings."""
        # A checkpoint format may leave out an empty dictionary.
        self.latent.load_state_dict(state.get("latent", {}))
        self.noise.load_state_dict(state.get("noise", {}))


def block_errors(
    clean: Tensor,
    predicted: Tensor,
    flow: Tensor,
    target: Tensor,
    indices: Tensor,
    sigmas: Tensor,
) -> list[BlockErrors]:
    """The errors of a step block by block, film after film.

    In latents: predicted − clean. In noise: (1 − sigma) · (flow − target). clean, predicted, flow, target:
    `[B, C, F, H, W]`. indices: table index of each block, `[B, blocks]`. sigmas: noise level of each block, `[B,
    blocks]`, that of the index even where the timestep is rounded or 0.
    """
    blocks = indices.shape[1]
    latent = (predicted - clean).detach().chunk(blocks, dim=2)
    scale = (1 - sigmas).repeat_interleave(clean.shape[2] // blocks, dim=1)[:, None, :, None, None].to(flow)
    noise = ((flow - target) * scale).detach().chunk(blocks, dim=2)
    return [
        BlockErrors(int(index), latent[block][film], noise[block][film])
        for film, row in enumerate(indices.tolist())
        for block, index in enumerate(row)
    ]


def _with_errors(x: Tensor, indices: list[list[int]], sample: Callable[[int], Tensor | None]) -> Tensor:
    """x `[B, C, F, H, W]` plus an error for each block, film after film."""
    result = x.clone()
    for film, row in enumerate(indices):
        for index, block in zip(row, result[film].chunk(len(row), dim=1), strict=True):
            error = sample(index)
            if error is not None:
                block += error.to(block)
    return result


def _happens(probability: float, rng: Random) -> bool:
    """A draw of the given probability; 0 draws nothing."""
    return probability > 0 and rng.random() < probability


def _numbers(name: str) -> tuple[int, int]:
    bucket, _, number = name.partition(".")
    return int(bucket), int(number)
