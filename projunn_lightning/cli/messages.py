"""The errors of jsonargparse in one line, with near misses for names that it does not know."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pydoc import locate

from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

KINDS: dict[str, type] = {
    "model": LightningModule,
    "data": LightningDataModule,
    "optimizer": Optimizer,
    "lr_scheduler": LRScheduler,
    "trainer.callbacks": Callback,
    "trainer.logger": Logger,
}
"""The base class of the class that an option names."""

_CLASS_PATH = r"Problem with given class_path '([\w.]+)':\s+"


def in_one_line(message: str, options: Iterable[str] = ()) -> str:
    r"""An error of jsonargparse in one line: the option, and what is wrong with its value.

    Args:
        message: the error.
        options: the names of all options, among which near misses of an unknown option are found.

    >>> in_one_line('Parser key "projunn.seed":\n  Expected a <class \'int\'>. Got value: x')
    'projunn.seed must be int, found x'
    """
    option = ".".join(re.findall(r'Parser key "([^"]+)":', message))
    if found := re.search(rf"{_CLASS_PATH}Option '([\w.]+)' is not accepted", message):
        return _unknown_option_of_a_class(_option_at(message, found), *found.groups())
    if found := re.search(rf"{_CLASS_PATH}the following arguments are required: ([\w., ]+)", message):
        at = _option_at(message, found)
        return f"{_name(found[1])} needs a value for {', '.join(f'{at}.{name}' for name in found[2].split(', '))}"
    if found := re.search(r"(?:(--[\w.]+\.help): |- )Expected a dot import path string: (\S+)", message):
        place = (found[1] or option).removeprefix("--").removesuffix(".help")
        if place in KINDS:
            return f"{option or found[1]}: there is no class {found[2]}{_near_classes(found[2], KINDS[place])}"
    if found := re.search(rf"{_CLASS_PATH}((?:No module|module|cannot import|Unable to import).*)", message):
        end = "; modules are found in the working folder, beside the config and on PYTHONPATH"
        if "has no attribute" in found[2]:
            end = _near_classes(_name(found[1]), KINDS[option]) if option in KINDS else ""
        return f"{option}: {found[1]} cannot be imported: {found[2]}{end}"
    if found := re.search(r"Import path does not correspond to (a subclass of \w+)(?s:.*)Given value: (.*)", message):
        return f"{option} must be {found[1]}, found {found[2]}"
    return _wrong_type(option, message) or _with_near_options(" ".join(message.split()), list(options))


def near(name: str, names: Iterable[str], separator: str = ".", cutoff: float = 0.6) -> list[str]:
    """Up to three names that resemble ``name``, as a whole or in their last part."""
    last = name.rpartition(separator)[2]
    found = [
        each for each in names if difflib.get_close_matches(last, [each, each.rpartition(separator)[2]], cutoff=cutoff)
    ]
    return sorted(found, key=lambda each: -difflib.SequenceMatcher(None, name, each).ratio())[:3]


def option_names(kind: type) -> list[str]:
    """The names of the options of a class."""
    return ArgumentParser(exit_on_error=False).add_class_arguments(kind, fail_untyped=False)


def classes_of(kind: type) -> list[type]:
    """All classes below a class that have been imported."""
    below: list[type] = kind.__subclasses__()
    return below + [each for one in below for each in classes_of(one)]


def _unknown_option_of_a_class(place: str, class_path: str, name: str) -> str:
    kind = locate(class_path)
    known = option_names(kind) if isinstance(kind, type) else []
    misses = [f"{place}.{each}" for each in near(name, known)]
    return f"{place}.{name} is no option of {_name(class_path)}{_near_misses(misses)}"


def _with_near_options(message: str, options: list[str]) -> str:
    for unknown in re.findall(r"unrecognized arguments: --([\w.]+)|does not accept option '([\w.]+)'", message):
        message += _near_misses(near("".join(unknown), options, cutoff=0.7))
    return message


def _wrong_type(option: str, message: str) -> str | None:
    expected = re.findall(r"Expected an? (.+?)(?:\. Got value| but |, but |: |$)", message, re.MULTILINE)
    found = re.findall(r"(?:Given|Got) value: (.*)$", message, re.MULTILINE)
    kinds = [re.sub(r"<class '(.+)'>", r"\1", kind).removeprefix("typing.") for kind in dict.fromkeys(expected)]
    kinds = [kind for kind in kinds if kind not in ("NoneType", "path")]  # null, and a file that holds the value
    return f"{option} must be {' or '.join(kinds)}, found {found[0]}" if option and kinds and found else None


def _option_at(message: str, found: re.Match[str]) -> str:
    """The option whose value a part of an error is about. Errors of nested options stand inside one another."""
    return ".".join(dict.fromkeys(re.findall(r'Parser key "([^"]+)":', message[: found.start()])))


def _near_classes(name: str, kind: type) -> str:
    return _near_misses(near(name, {each.__name__ for each in classes_of(kind) if not each.__name__.startswith("_")}))


def _near_misses(names: list[str]) -> str:
    return f"; near misses: {', '.join(names)}" if names else ""


def _name(class_path: str) -> str:
    return class_path.rpartition(".")[2]
