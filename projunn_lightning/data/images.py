"""Labelled images as tensors, which Hugging Face ``datasets`` reads or which are drawn on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from projunn_lightning.data.digits import rendered_digits
from projunn_lightning.errors import ProjUNNError, import_extra

RENDERED = "rendered-digits"
SPLITS = ("train", "test")

DECODING = 2
"""The version of :func:`_decode`. Raise it with every change there, because ``datasets`` caches the results."""


class Images(NamedTuple):
    """Images ``(n, C, H, W)``, uint8, and their classes ``(n,)``, int64."""

    pixels: Tensor
    labels: Tensor


class Source(dict[str, Images]):
    """The images of each split of a source by the name of the split.

    Args:
        images: the images of each split.
        num_classes: the number of classes. A class may have no image.
    """

    def __init__(self, images: dict[str, Images], num_classes: int) -> None:
        super().__init__(images)
        self.num_classes = num_classes


def load_images(source: str, root: str = "data", resize: tuple[int, int] | None = None) -> Source:
    """Load the ``"train"`` and ``"test"`` images of a source, or only ``"train"`` if the source has no other split.

    The first call decodes the images, and ``datasets`` caches them under ``root``. Later calls, in this process or in
    another one, read the cache in a fraction of a second. Grey images stay grey; all others become RGB. The classes are
    the first column of type ClassLabel (``fine_label`` for CIFAR-100), or else a column ``label`` of integers.

    Args:
        source: the name of a data set on the Hugging Face Hub, a local folder in the same layout or with a folder of
            image files for each class, or ``"rendered-digits"``
            (:func:`~projunn_lightning.data.digits.rendered_digits`).
        root: folder of downloads and decoded images.
        resize: the height and width to which all images are resized; None leaves them as they are.

    Raises:
        ProjUNNError: if the source cannot be found or reached, if it does not hold labelled images of one size, or if
            ``datasets`` or Pillow is not installed.
    """
    if source == RENDERED:
        return Source({split: _drawn(split, resize) for split in SPLITS}, num_classes=10)
    splits = _loaded(source, root)
    images = {name: _images(split, f"source {source!r}, split {name!r}", resize) for name, split in splits.items()}
    shapes = {name: tuple(each.pixels.shape[1:]) for name, each in images.items()}
    if len(set(shapes.values())) > 1:
        raise ProjUNNError(
            f"source {source!r} has train images of (C, H, W) = {shapes['train']} and test images of {shapes['test']}; "
            + _remedy(shapes["train"][1:] != shapes["test"][1:])
        )
    feature = splits["train"].features[_columns(splits["train"], source)[1]]
    largest = max(int(each.labels.max()) for each in images.values())
    return Source(images, getattr(feature, "num_classes", None) or largest + 1)


def _drawn(split: str, resize: tuple[int, int] | None) -> Images:
    pixels, labels = rendered_digits(split)
    if resize is not None:
        resized = F.interpolate(pixels.float(), resize, mode="bicubic", antialias=True)
        pixels = resized.clamp_(0, 255).round_().byte()
    return Images(pixels.clone(), labels.clone())


def _loaded(source: str, root: str) -> Any:
    datasets = import_extra("datasets")
    folder = Path(source).expanduser()
    try:
        splits = datasets.load_dataset(str(folder) if folder.is_dir() else source, cache_dir=root)
    except (OSError, ValueError) as error:  # no such folder, name or network, or unreadable files
        kind = "is a local folder" if folder.is_dir() else "is not a local folder"
        reason = str(error).rstrip(".")
        raise ProjUNNError(
            f"source {source!r} {kind}, and datasets.load_dataset cannot read it: {reason}. Pass the name of a data "
            f"set on the Hub, such as ylecun/mnist, a local folder in its layout, or {RENDERED!r}, which needs no data"
        ) from error
    if list(splits) == ["train"]:
        return splits
    if any(split not in splits for split in SPLITS):
        raise ProjUNNError(
            f"source {source!r} has the splits {', '.join(splits)}, expected {' and '.join(SPLITS)}, or train alone"
        )
    return {split: splits[split] for split in SPLITS}


def _images(dataset: Any, where: str, resize: tuple[int, int] | None) -> Images:
    """The images and the classes of a split as tensors. The library datasets keeps the decoded images in its cache.

    Args:
        dataset: the split, a ``datasets.Dataset``.
        where: the name of the split in error messages.
        resize: see :func:`load_images`.

    Raises:
        ProjUNNError: if an image cannot be read, a row has no image or no class, or the sizes of the images differ.
    """
    image, label = _columns(dataset, where)
    try:
        decoded = dataset.map(
            _decode,
            batched=True,
            input_columns=[image, label],
            remove_columns=dataset.column_names,
            fn_kwargs={"where": where, "resize": resize, "version": DECODING},
            desc=f"decoding {where}",
        )
    except OSError as error:
        raise ProjUNNError(f"{where}: a file is no image that Pillow can read: {error}") from error
    table = decoded.with_format("arrow")[:]
    height, width, channels = map(int, _common_shape(table["shape"].unique().to_pylist(), where).split(" x "))
    pixels = torch.frombuffer(bytearray(b"".join(table["pixels"].to_pylist())), dtype=torch.uint8)
    pixels = pixels.view(-1, height, width, channels).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(table["label"].to_numpy()))


def _decode(
    images: list[Any], labels: list[Any], where: str, resize: tuple[int, int] | None, version: int
) -> dict[str, list[Any]]:
    if None in images:
        raise ProjUNNError(f"{where} has a row without an image")
    if any(label is None or label < 0 for label in labels):  # the Hub writes -1 for a class that it keeps secret
        raise ProjUNNError(f"{where} has images without a class (null or -1)")
    images = [_resized(_grey_or_rgb(image, where), resize) for image in images]
    shapes = [f"{image.height} x {image.width} x {len(image.getbands())}" for image in images]
    _common_shape(shapes, where)  # checked here too, so that a bad split is refused before all of it is decoded
    return {"pixels": [image.tobytes() for image in images], "shape": shapes, "label": labels}


def _common_shape(shapes: list[str], where: str) -> str:
    """The shape that all images have."""
    several = sorted(set(shapes))
    if len(several) != 1:
        sides = {shape.rpartition(" x ")[0] for shape in several}
        raise ProjUNNError(
            f"{where} has images of {' and of '.join(several[:2])} (H x W x C); {_remedy(len(sides) > 1)}"
        )
    return several[0]


def _remedy(sides_differ: bool) -> str:
    """The end of a message about images of several shapes."""
    if sides_differ:
        return "set the option resize, such as --data.resize 32, to bring all images to one height and width"
    return "convert all images to grey or all to RGB"


def _resized(image: Any, resize: tuple[int, int] | None) -> Any:
    return image if resize is None else image.resize(resize[::-1])  # Pillow's sizes are (width, height)


def _grey_or_rgb(image: Any, where: str) -> Any:
    if image.mode in ("1", "LA", "La"):
        return image.convert("L")
    if image.mode.startswith(("I", "F")):
        raise ProjUNNError(f"{where} has an image of mode {image.mode}, expected 8 bits a channel")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _columns(dataset: Any, where: str) -> tuple[str, str]:
    """The names of the first column of images and of the column of classes."""
    datasets = import_extra("datasets")
    features = dataset.features
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if not classes and "int" in str(getattr(features.get("label"), "dtype", None)):
        classes = ["label"]
    for kind, names in (("Image", images), ("ClassLabel", classes)):
        if not names:
            columns = ", ".join(f"{name}: {type(feature).__name__}" for name, feature in features.items())
            raise ProjUNNError(f"{where} has no column of type {kind}, found {columns}")
    return images[0], classes[0]
