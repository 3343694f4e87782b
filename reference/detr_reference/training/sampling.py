"""Which images each process takes at each step.

An order is drawn anew for each epoch, from the seed and the epoch alone, so that a run that is resumed knows it. With
any number of processes and of batches added up, step s has the images s * batch_size to (s + 1) * batch_size of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from itertools import islice
from typing import cast

from torch.utils.data import BatchSampler, Dataset, DistributedSampler, Sampler

from detr_reference.training.distributed import Processes


class EpochBatches(Sampler[list[int]]):
    """The batches that are left of an epoch, for this process; its length is their number.

    What does not fill the last step of an epoch is left out, in the next epoch other images.

    Args:
        images: of which the number counts.
        group: the processes that share its images.
        batch_size: images of a step, of all processes together.
        accumulation: batches of a process whose gradients are added up in a step.
        seed, epoch: of the order.
        done: steps of the epoch that are done already.

    Raises:
        ValueError: a batch cannot be shared evenly, or there are too few images for one.
    """

    def __init__(
        self,
        images: Sized,
        group: Processes,
        *,
        batch_size: int,
        accumulation: int,
        seed: int,
        epoch: int = 0,
        done: int = 0,
    ) -> None:
        shares = group.count * accumulation
        if batch_size % shares:
            raise ValueError(
                f"a batch of {batch_size} images cannot be shared evenly among {group.count} processes that add up "
                f"{accumulation} batches each; let training.batch_size be a multiple of {shares}"
            )
        numbers = cast(Dataset[int], range(len(images)))  # a sampler looks at the length alone
        order: DistributedSampler[int] = DistributedSampler(numbers, group.count, group.rank, seed=seed, drop_last=True)
        order.set_epoch(epoch)
        self._batches = BatchSampler(order, batch_size // shares, drop_last=True)
        self.steps = len(self._batches) // accumulation
        if not self.steps:
            raise ValueError(f"{len(images)} images are too few for a batch of {batch_size}; lower training.batch_size")
        self._left = (done * accumulation, self.steps * accumulation)

    def __iter__(self) -> Iterator[list[int]]:
        return islice(iter(self._batches), *self._left)

    def __len__(self) -> int:
        return self._left[1] - self._left[0]
