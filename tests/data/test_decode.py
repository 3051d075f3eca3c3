"""Image files to pixels, to the byte."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from yoco.data import decode
from yoco.utils import digests


def picture(width, height, channels=3):
    """An image in which every pixel is another one."""
    count = width * height * channels
    values = (np.arange(count) * 7 % 251).astype(np.uint8).reshape(height, width, channels)
    return Image.fromarray(values)


@pytest.mark.parametrize(
    "width, height, left, top", [(20, 10, 5, 0), (10, 21, 0, 5), (15, 10, 2, 0)]
)
def test_the_middle_is_cut_out(width, height, left, top):
    """Where the shorter side has the size already, no pixel changes."""
    image = picture(width, height)
    expected = np.asarray(image)[top : top + 10, left : left + 10]
    assert np.array_equal(np.asarray(decode.cropped(image, 10)), expected)


@pytest.mark.parametrize("width, height", [(24, 16), (16, 25), (7, 3), (8, 8)])
def test_the_shorter_side_is_resized_first(width, height):
    image = picture(width, height)
    scaled = round(width * 8 / min(width, height)), round(height * 8 / min(width, height))
    left, top = (scaled[0] - 8) // 2, (scaled[1] - 8) // 2
    whole = np.asarray(image.resize(scaled, Image.Resampling.BILINEAR))
    found = np.asarray(decode.cropped(image, 8))
    assert np.array_equal(found, whole[top : top + 8, left : left + 8])


def test_no_size_and_the_same_size_change_nothing():
    for image, size in ((picture(9, 4), None), (picture(6, 6), 6)):
        assert decode.cropped(image, size) is image


def test_an_image_may_come_to_so_many_pixels_and_no_more(monkeypatch):
    monkeypatch.setattr(decode, "MOST_PIXELS", 8 * 16)
    assert decode.cropped(picture(4, 2), 8).size == (8, 8)
    with pytest.raises(ValueError, match="it is 17x8 and would be resized to 17x8, more than 128"):
        decode.cropped(picture(17, 8), 8)


def bytes_of(values, dtype, **saved):
    image = Image.fromarray(np.array([values], dtype))
    image.format = saved.get("format")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of NaN
        return np.asarray(decode.upright(image))[0].tolist()


def test_values_are_scaled_by_their_range_and_rounded():
    assert bytes_of([0, 128, 129, 32768, 65535], np.uint16) == [0, 0, 1, 128, 255]
    assert bytes_of([0, 1, 254, 255], np.int32) == [0, 1, 254, 255]
    assert bytes_of([0, 256, 385, 386, 65535], np.int32) == [0, 1, 1, 2, 255]
    assert bytes_of([0, 255], np.int32, format="PNG") == [0, 1]
    assert bytes_of([0, 0.501, 1], np.float32) == [0, 128, 255]
    assert bytes_of([0, 1, 127.6, 255], np.float32) == [0, 1, 128, 255]
    assert bytes_of([0, 257, 65535], np.float32) == [0, 1, 255]
    assert bytes_of([-1, 0, 1], np.float32) == [0, 128, 255]  # else from the lowest to the highest
    assert bytes_of([0, 50_000, 100_000], np.int32) == [0, 128, 255]
    assert bytes_of([-7, -7], np.float32) == [0, 0]


def test_blocks_of_files_give_the_same_pixels_and_digest(tmp_path, monkeypatch):
    names = [f"{number}.png" for number in range(5)]
    for number, name in enumerate(names):
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(tmp_path / name)
    source = decode.Source(tmp_path, names, None)
    assert decode.shape_of(source) == (5, 3, 4, 4)
    made = []
    for block in (2**23, 2 * 48):  # one block; two images a block
        monkeypatch.setattr(digests, "BLOCK", block)
        out = np.empty((5, 3, 4, 4), np.uint8)
        counts, digest = decode.decode(source, out, "", False)
        assert [np.unique(image).tolist() for image in out] == [[n] for n in range(5)]
        assert torch.equal(counts, decode.histogram(torch.from_numpy(out)))
        assert counts[:, :6].tolist() == [[16] * 5 + [0]] * 3 and counts.sum() == 5 * 48
        assert digest == digests.of_tensor(torch.from_numpy(out))
        made.append(digest)
    assert made[0] != made[1]


def test_an_image_of_another_shape_is_named_with_both(tmp_path):
    for name, size in (("a.png", (4, 4)), ("b.png", (5, 4)), ("c.png", (8, 2))):
        Image.new("RGB", size).save(tmp_path / name)
    for name, said in (("b.png", "b.png is 5x4"), ("c.png", "c.png is 8x2")):
        source = decode.Source(tmp_path, ["a.png", name], None)
        with pytest.raises(ValueError, match=f"{said}, but a.png is 4x4; pass size="):
            decode.decode(source, np.empty((2, 3, 4, 4), np.uint8), "", False)
    with pytest.raises(ValueError, match="b.png is 5x4, not square"):
        decode.shape_of(decode.Source(tmp_path, ["b.png"], None))
