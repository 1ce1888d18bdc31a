"""Small data sets in local folders, in the layout of the Hugging Face Hub."""

import datasets
import numpy as np
from PIL import Image


def write_split(folder, split, images, labels, names=("image", "label"), classes=4):
    """Write a Parquet file with the columns of ylecun/mnist and uoft-cs/cifar10 on the Hub."""
    image, label = names
    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(num_classes=classes)})
    columns = {image: [Image.fromarray(array) for array in images], label: list(labels)}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")


def random_images(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(256, size=(count, *shape), dtype=np.uint8)


def labels_of(count, classes=4):
    """The labels 0, 1, .., in turn, so that every class occurs."""
    return np.arange(count) % classes


def write_folder(folder, *shape, train=40, test=12, **options):
    """Write a folder of random images of the given shape, and return the training images and their classes."""
    folder.mkdir()
    images = random_images(train, *shape)
    write_split(folder, "train", images, labels_of(train), **options)
    write_split(folder, "test", random_images(test, *shape, seed=1), labels_of(test), **options)
    return images, labels_of(train)
