"""Labelled images as tensors, read by Hugging Face ``datasets`` or drawn on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from projunn_lightning._checks import optional
from projunn_lightning.data.digits import rendered_digits

RENDERED = "rendered-digits"
SPLITS = ("train", "test")


class Images(NamedTuple):
    """Images ``(n, C, H, W)`` of uint8 and their classes ``(n,)`` of int64."""

    pixels: Tensor
    labels: Tensor


def load_images(source: str, split: str, root: str = "data") -> Images:
    """The ``"train"`` or ``"test"`` images of a source.

    The first call decodes them and keeps them under ``root``, by the cache of ``datasets``; later ones, in this process
    or another, read them back in a fraction of a second. Images that are neither grey nor RGB are converted to RGB.

    Args:
        source: a data set's name on the Hub, a local folder in the same layout, or ``"rendered-digits"``, digits that
            are drawn on the spot (:func:`~projunn_lightning.data.digits.rendered_digits`).
        split: of the source.
        root: folder of downloads and decoded images.

    Raises:
        ValueError: if the source cannot be found or reached, or does not hold labelled images of one size.
        ModuleNotFoundError: if ``datasets`` or Pillow is not installed.
    """
    if source == RENDERED:
        return Images(*rendered_digits(split))
    table = decoded(source, split, root).with_format("arrow")[:]
    sides = [table[name].unique().to_pylist() for name in ("height", "width", "channels")]
    if any(len(values) != 1 for values in sides):
        found = " x ".join("|".join(map(str, values)) for values in sides)
        raise ValueError(f"source {source!r} has images of several sizes, {found}; they must be of one, resize them")
    ((height,), (width,), (channels,)) = sides
    pixels = torch.frombuffer(bytearray(b"".join(table["pixels"].to_pylist())), dtype=torch.uint8)
    pixels = pixels.view(-1, height, width, channels).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(table["label"].to_numpy()))


def decoded(source: str, split: str, root: str) -> Any:
    """The ``datasets.Dataset`` of decoded images behind :func:`load_images`, from the cache where it is there."""
    dataset = _loaded(source, split, root)
    image, label = _columns(dataset, source)
    return dataset.map(
        _decode,
        batched=True,
        input_columns=[image, label],
        remove_columns=dataset.column_names,
        desc=f"decoding {split} images",
    )


def _decode(images: list[Any], labels: list[int]) -> dict[str, list[Any]]:
    images = [image if image.mode in ("L", "RGB") else image.convert("RGB") for image in images]
    return {
        "pixels": [image.tobytes() for image in images],
        "height": [image.height for image in images],
        "width": [image.width for image in images],
        "channels": [len(image.getbands()) for image in images],
        "label": labels,
    }


def _loaded(source: str, split: str, root: str) -> Any:
    datasets = optional("datasets")
    try:
        splits = datasets.load_dataset(source, cache_dir=root)
    except (OSError, ValueError) as error:  # no such folder, no such name, no network, no file that it can read
        kind = "is a local folder" if Path(source).is_dir() else "is not a local folder"
        reason = str(error).rstrip(".")
        raise ValueError(
            f"source {source!r} {kind}, and datasets.load_dataset cannot read it: {reason}. Pass the name of a data "
            f"set on the Hub, such as ylecun/mnist, a local folder in its layout, or {RENDERED!r}, which needs no data"
        ) from error
    if split not in splits:
        raise ValueError(f"source {source!r} has the splits {', '.join(splits)}, expected {' and '.join(SPLITS)}")
    return splits[split]


def _columns(dataset: Any, source: str) -> tuple[str, str]:
    """The names of the first column of images and the first of classes."""
    datasets = optional("datasets")
    found = []
    for kind in (datasets.Image, datasets.ClassLabel):
        names = [name for name, feature in dataset.features.items() if isinstance(feature, kind)]
        if not names:
            columns = ", ".join(f"{name}: {type(feature).__name__}" for name, feature in dataset.features.items())
            raise ValueError(f"source {source!r} has no column of type {kind.__name__}, found {columns}")
        found.append(names[0])
    return found[0], found[1]
