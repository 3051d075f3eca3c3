"""Classes on a GPU: those that it matches together, and one draw of real images for all of them.

A group has equal batches, and is small enough for the memory.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from yoco.utils import seeds

# pixels of real and synthetic images that are matched at once: 8 classes of CIFAR-10 at IPC 10,
# which take 2.6 GB with the ConvNet (measured on a CPU)
TOGETHER = 8 * (64 + 40) * 32**2


class Group:
    """Classes that are matched together.

    Attributes:
        labels: the classes, int64 [k] on the device.
        real: real images of each.
    """

    def __init__(self, labels: Tensor, real: int) -> None:
        self.labels, self.real = labels, real

    def of_each(self, images: Float[Tensor, "images ..."]) -> Int[Tensor, "images"]:
        """Return the class of each image of a batch with equally many of each class, by class."""
        return self.labels.repeat_interleave(len(images) // len(self.labels))

    def places(self, chosen: Int[Tensor, "classes images"], images: int) -> Int[Tensor, "places"]:
        """Return the places, in a batch of `images` images by class, of those that are chosen.

        chosen: numbers within a class, for every class of the data.
        """
        starts = torch.arange(0, images, images // len(self.labels), device=chosen.device)
        return (chosen[self.labels] + starts.view(-1, 1)).flatten()


def grouped(
    classes: Sequence[int],
    real: Sequence[int],
    synthetic: int,
    size: int,
    device: torch.device,
) -> list[Group]:
    """Return the groups in which a GPU matches classes.

    Args:
        classes: the classes to match.
        real: real images in the batch of each class of the data.
        synthetic: synthetic images in the batch of a class.
        size: side of an image in pixels.
        device: where the classes are matched.
    """
    alike = defaultdict(list)
    for label in classes:
        alike[real[label]].append(label)
    groups = []
    for count, labels in alike.items():
        most = max(1, TOGETHER // ((count + synthetic) * size**2))
        parts = torch.tensor(labels, device=device).tensor_split(math.ceil(len(labels) / most))
        groups += [Group(part, count) for part in parts]
    return groups


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
        self.padded = torch.nn.utils.rnn.pad_sequence(list(members), batch_first=True).to(device)
        self.sizes = torch.tensor([[len(own)] for own in members], device=device)

    def draw(self, count: int, source: Generator) -> Int[Tensor, "classes images"]:
        """Draw `count` different images of each class without waiting for a GPU.

        Returns their indices, int64 [K, n]. n is `count`, or the size of the largest class if that
        is less. The row of a smaller class begins with all of its images.
        """
        most = self.padded.shape[1]
        places = seeds.choice_of_each(self.sizes, most, min(count, most), source)
        return self.padded.gather(1, places)
