"""The private names of torch, Lightning and jsonargparse that this package uses, each behind a function that says why.

Lightning and jsonargparse are imported inside the functions: the modules that load torch only use this one, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

if TYPE_CHECKING:
    from argparse import _ArgumentGroup

    from jsonargparse import ArgumentParser
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.callbacks import WeightAveraging

# ---- torch ----


def foreach_copy_(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """``torch._foreach_copy_``: copy each source to its target, in one call; torch has no public name for it."""
    torch._foreach_copy_(list(targets), list(sources))


def in_torch_func() -> bool:
    """``torch._C._are_functorch_transforms_active``: whether a transform of ``torch.func``, such as ``grad``, runs.

    ``torch.autograd.Function`` asks the same. There is no public name for it.
    """
    return torch._C._are_functorch_transforms_active()


def step_pre_hooks(optimizer: Optimizer) -> list[object]:
    """``Optimizer._optimizer_step_pre_hooks``: the hooks registered before steps; they can only be added publicly."""
    return list(optimizer._optimizer_step_pre_hooks.values())


def register_first_step_post_hook(optimizer: Optimizer, hook: Callable[..., Any]) -> RemovableHandle:
    """Register a hook that runs before all other hooks after a step.

    ``Optimizer.register_step_post_hook`` can only append a hook to ``_optimizer_step_post_hooks``.
    """
    handle = optimizer.register_step_post_hook(hook)
    optimizer._optimizer_step_post_hooks.move_to_end(handle.id, last=False)  # type: ignore[attr-defined]
    return handle


def hooked_steps(optimizer: Optimizer) -> int:
    """The number of classes of an optimizer with a ``step`` that torch has wrapped in hooks (``step.hooked``).

    Each of them that is called runs the hooks, so that a ``step`` that calls the ``step`` of its base class runs them
    twice.
    """
    return sum(hasattr(vars(kind).get("step"), "hooked") for kind in type(optimizer).__mro__)


_COMPILED = "_orig_mod"


def is_compiled(module: nn.Module) -> bool:
    """Whether a module is a wrapper that ``torch.compile`` has returned.

    The wrapper, an ``OptimizedModule``, has no public name. It holds the module as its child ``_orig_mod``.
    """
    return _COMPILED in module._modules


def uncompiled(module: nn.Module) -> nn.Module:
    """The module inside of a wrapper of ``torch.compile``, or the module itself."""
    while is_compiled(module):
        module = module.get_submodule(_COMPILED)
    return module


def plain_name(name: str) -> str:
    """A parameter's name without the ``_orig_mod.`` that ``torch.compile`` puts in.

    ``get_parameter`` and ``get_submodule`` of a compiled module accept it, too.
    """
    return name.replace(f"{_COMPILED}.", "")


def has_hooks_on_inputs(module: nn.Module) -> bool:
    """Whether a module has hooks that see its inputs, or their gradients, after the hooks before its forward pass.

    torch keeps them in ``_forward_hooks``, ``_backward_hooks`` and ``_backward_pre_hooks``; they can only be added
    publicly.
    """
    return bool(module._forward_hooks or module._backward_hooks or module._backward_pre_hooks)


# ---- jsonargparse ----


def subcommands(parser: ArgumentParser) -> Any:
    """The action that holds the subcommands of a parser.

    jsonargparse keeps it in ``_subcommands_action``. It also returns it from ``add_subcommands``, but LightningCLI
    makes that call and does not keep the action.
    """
    return parser._subcommands_action


def set_subcommand_help(parser: ArgumentParser, texts: Mapping[str, str]) -> None:
    """Set the line that the help of a parser shows for each of its subcommands.

    A subcommand that is not in ``texts`` keeps its line. argparse keeps these lines in ``_choices_actions``.
    LightningCLI fills them from the docstrings of ``Trainer.fit`` and so on, and has no option for other texts.
    """
    for shown in subcommands(parser)._choices_actions:
        shown.help = texts.get(shown.dest, shown.help)


def change_help(parser: ArgumentParser, change: Callable[[str], str]) -> None:
    """Replace the help text of each argument of a parser by ``change(text)``.

    argparse keeps the arguments in ``_actions``. jsonargparse takes the texts from docstrings, and has no option to
    change them.
    """
    for action in parser._actions:
        if isinstance(action.help, str):
            action.help = change(action.help)


def show_last(parser: ArgumentParser, group: _ArgumentGroup) -> None:
    """Move a group of arguments to the end of the help.

    argparse shows its ``_action_groups`` in their order, and LightningCLI adds the group of the Trainer first.
    """
    parser._action_groups = sorted(parser._action_groups, key=lambda each: each is group)


def wrap_instantiators(parser: ArgumentParser, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace each function by which a parser makes objects of the classes in a config by ``wrap(function)``.

    jsonargparse keeps the functions in ``_instantiators``. LightningCLI adds its own for the model and the data, and
    jsonargparse calls only the first that is for a class.
    """
    parser._instantiators = {key: wrap(function) for key, function in (parser._instantiators or {}).items()}


# ---- Lightning ----


def trainer_callbacks(trainer: Trainer) -> list[Callback]:
    """The callbacks of a Trainer, a list that may be changed.

    The attribute is public, but type checkers do not see it, because a connector sets it.
    """
    return trainer.callbacks  # type: ignore[attr-defined]


def averaged_model(callback: WeightAveraging) -> nn.Module | None:
    """``WeightAveraging._average_model.module``: the average of the model, or None outside of ``fit``.

    Lightning validates and saves the average, and has no public name for it.
    """
    average = callback._average_model
    return None if average is None else average.module


@contextmanager
def averages_put_aside(trainer: Trainer) -> Iterator[None]:
    """Take the averages of ``WeightAveraging`` callbacks away while a checkpoint is tested after ``fit``.

    As long as a callback has its average, in ``_average_model``, it takes the loading of a checkpoint for a resumed
    ``fit``, and replaces the averages in the model by the weights that were averaged.
    """
    from lightning.pytorch.callbacks import WeightAveraging

    averages = {each: each._average_model for each in trainer_callbacks(trainer) if isinstance(each, WeightAveraging)}
    try:
        for callback in averages:
            callback._average_model = None
        yield
    finally:
        for callback, average in averages.items():
            callback._average_model = average


def hide_hyperparameter(part: LightningModule | LightningDataModule, name: str) -> None:
    """Keep a hyperparameter from the loggers, but not from the checkpoints.

    Loggers get ``_hparams_initial``. LightningCLI adds names of its own, which checkpoints need.
    """
    part.hparams  # noqa: B018  # a model that saves none has the attribute only after this
    getattr(part, "_hparams_initial", {}).pop(name, None)


def builds_its_layers_later(model: LightningModule) -> bool:
    """Whether a model may build layers in ``setup`` or ``configure_model``, after it has been made.

    The models of this package override these hooks only to shard the layers that they have.
    """
    from lightning.pytorch.utilities.model_helpers import is_overridden

    hooks = [getattr(model, hook) for hook in ("setup", "configure_model") if is_overridden(hook, model)]
    return any(not hook.__module__.startswith("projunn_lightning.") for hook in hooks)


def changes_its_state_dict(model: LightningModule) -> bool:
    """Whether a model may rename or reshape the entries of a checkpoint while it loads them.

    It does so in ``on_load_checkpoint``, in ``load_state_dict``, or in a hook that one of its modules has registered by
    ``register_load_state_dict_pre_hook``. torch keeps these hooks in ``_load_state_dict_pre_hooks`` and has no way to
    ask for them. Lazy layers have one.
    """
    from lightning.pytorch.utilities.model_helpers import is_overridden

    return (
        is_overridden("on_load_checkpoint", model)
        or is_overridden("load_state_dict", model)
        or any(module._load_state_dict_pre_hooks for module in model.modules())
    )


def print_results(results: Sequence[Mapping[str, Any]]) -> None:
    """``_EvaluationLoop._print_results``: print the table of ``Trainer.test``, whose ``verbose`` must be set before."""
    from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop

    _EvaluationLoop._print_results([dict(each) for each in results], "test")


def logs_now(trainer: Trainer) -> bool:
    """Whether the trainer logs after this training batch.

    ``Trainer._logger_connector.should_update_logs`` counts the steps, and is true for all batches whose gradients are
    accumulated for one step. Lightning logs after the last of them, which ``_should_accumulate`` tells it.
    """
    accumulating = trainer.lightning_module.automatic_optimization and trainer.fit_loop._should_accumulate()
    return bool(trainer._logger_connector.should_update_logs) and not accumulating


def logged_step(trainer: Trainer) -> int:
    """``_FitLoop.epoch_loop._batches_that_stepped``: the step under which Lightning logs the present training batch.

    Lightning's own monitors use it. ``Trainer.global_step``, the nearest public name, counts the steps of all
    optimizers.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def fast_dev_run(trainer: Trainer) -> bool:
    """``Trainer.fast_dev_run``: whether the run only tries a few batches; public, but type checkers do not see it."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def batches_processed(trainer: Trainer) -> int:
    """``_FitLoop.epoch_loop``: the number of training batches that are finished, over all epochs and resumed runs.

    ``Trainer.global_step``, the nearest public name, counts the steps of the optimizers instead.
    """
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]


def epochs_processed(trainer: Trainer) -> int:
    """``_FitLoop.epoch_progress``: the number of training epochs whose batches are finished.

    ``Trainer.current_epoch``, the nearest public name, increases only after the hooks at the end of an epoch. If a run
    resumes from a checkpoint that was saved in such a hook, it is one too low while the loaders are made.
    """
    return trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
