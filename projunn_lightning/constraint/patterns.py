"""The patterns that choose parameters by their names."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fnmatch import fnmatchcase

from projunn_lightning._compat import plain_name


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern matches the name of a parameter, with or without what ``torch.compile`` puts into it.

    A pattern is a glob over the whole name. A ``*`` between two dots or before the first dot stands for any number of
    modules, also for none. Brackets are a set of characters, as in other globs, or stand for themselves.

    >>> [matches(name, "encoder.*.weight_hh_l*") for name in ("encoder.rnn.weight_hh_l0", "encoder.weight_hh_l0")]
    [True, True]
    >>> matches("blocks[0].weight", "blocks[0].*")
    True
    """
    return any(fnmatchcase(each, spelling) for each in {name, plain_name(name)} for spelling in _spellings(pattern))


def _spellings(pattern: str) -> Iterator[str]:
    """Yield the globs of which one must match: with and without each module ``*``, with brackets as sets or literal."""
    *modules, leaf = pattern.split(".")
    for kept in itertools.product(*([[module], []] if module == "*" else [[module]] for module in modules)):
        glob = ".".join([*itertools.chain(*kept), leaf])
        yield glob
        yield glob.replace("[", "[[]")
