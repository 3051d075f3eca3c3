"""Each class's training images as one tensor, so that one draw on a GPU serves all classes."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from yoco.utils import seeds


class Members:
    """The training images of every class, by index.

    Args:
        members: indices of each class's training images, int64 [n] each.
        device: where they are held.

    Attributes:
        padded: the indices, padded with zeros, int64 [K, most].
        sizes: number of training images of each class, int64 [K, 1].
    """

    def __init__(self, members: Sequence[Tensor], device: torch.device) -> None:
        padded = torch.nn.utils.rnn.pad_sequence(list(members), batch_first=True)
        self.padded = padded.to(device)
        self.sizes = torch.tensor([[len(own)] for own in members], device=device)

    def draw(self, count: int, source: Generator) -> Int[Tensor, "k n"]:
        """Draw `count` different images of each class without waiting for a GPU.

        Returns their indices, int64 [K, n]. n is `count`, or the size of the largest class if that
        is less. The row of a smaller class begins with all of its images.
        """
        most = self.padded.shape[1]
        places = seeds.choice_of_each(self.sizes, most, min(count, most), source)
        return self.padded.gather(1, places)
