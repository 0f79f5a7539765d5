"""Weights, gradients, moments and averages in shards, one for each process of a run: FSDP2 of torch."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from ..model import CausalWan
from .stage import Stage
from .workers import Workers


def shard(stage: Stage, workers: Workers) -> None:
    """Splits the weights of what a stage trains among all processes; a layer is whole only while it runs.

    Gradients are summed over the groups, which have different parts of a batch, and averaged over the ranks of a
    sequence, which share a part. Raises ValueError for parts that are no transformer, and for Muon and moments on the
    CPU, which need whole weights.
    """
    for trained in stage.trained:
        module, settings = trained.module, trained.optimiser
        if not isinstance(module, CausalWan):
            raise ValueError(
                f"'{trained.name}' of stage '{stage.name}' cannot be sharded: set 'trainer.shard' to false"
            )
        if settings.muon_lr is not None or settings.offload:
            raise ValueError(
                "a sharded run needs AdamW on the device: unset 'muon_lr' and 'offload', or 'trainer.shard'"
            )
        device = next(module.parameters()).device.type
        mesh = init_device_mesh(device, (workers.count,))
        for layer in module.blocks:
            fully_shard(layer, mesh=mesh)
        fully_shard(module, mesh=mesh)
        register_fsdp_forward_method(module, "embed_text")
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.set_gradient_divide_factor(float(workers.sequence.size))
                # Gloo cannot multiply while it sums.
                part.set_force_sum_reduction_for_comms(True)


def reshard(module: nn.Module) -> None:
    """Gives up weights that are whole since a forward pass without a backward pass. Does nothing to whole modules."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def shard_like(value: Tensor, like: Tensor) -> Tensor:
    """The own shard of a whole tensor, if `like` is a shard; else the tensor."""
    if not isinstance(like, DTensor) or isinstance(value, DTensor) or value.shape != like.shape:
        return value
    whole = value.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors whole, on the CPU. Called in all processes of a run, which send each other their shards."""
    return {name: _whole(value.detach()).cpu() for name, value in tensors.items()}


def norm_of(gradients: Tensor) -> float:
    """A norm of sharded or whole gradients."""
    return float(_whole(gradients))


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value
