"""The ``projunn`` command: LightningCLI with the ProjUNN callback always on and the task's baseline at the end."""

from __future__ import annotations

import logging
import operator
import os
import signal
import sys
import warnings
from dataclasses import replace
from typing import Any

import lightning
from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter, LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.types import LRSchedulerTypeUnion
from rich.console import Console
from torch.optim import Optimizer

from projunn_lightning import ProjUNN
from projunn_lightning.callbacks import PredictionWriter, RNGState, UnitarityMonitor
from projunn_lightning.cli.checkpoint import check_fits, read_checkpoint
from projunn_lightning.cli.compare import add_arguments as add_compare_arguments
from projunn_lightning.cli.compare import compare
from projunn_lightning.cli.config_file import ConfigFile
from projunn_lightning.cli.configs import list_configs
from projunn_lightning.cli.help import COMMANDS, arrange, parser_options
from projunn_lightning.errors import ProjUNNError

OTHER_COMMANDS = {"compare": compare, "configs": list_configs}
"""Those that are not LightningCLI's; they take the arguments that follow."""


class SaveConfig(SaveConfigCallback):
    """Saves the configuration beside the logs; without a logger, where it would go to the working folder, nowhere."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.loggers:
            super().setup(trainer, pl_module, stage)


class ProjUNNCLI(LightningCLI):
    """fit, validate, test and predict for any LightningModule and LightningDataModule, named by class path."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        kwargs.setdefault("dump_header", [f"lightning.pytorch=={lightning.__version__}"])
        parser = self.parser_class(**kwargs)
        parser.add_argument(
            "-c", "--config", action=ConfigFile, help="A file in YAML, or the name of one that `projunn configs` lists."
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(ProjUNN, "projunn")
        parser.add_lightning_class_args(PredictionWriter, "predictions")

    def setup_parser(self, add_subcommands: bool, *parser_kwargs: Any) -> None:
        """Show the commands that are not LightningCLI's beside its own, each with a line that says what it does."""
        super().setup_parser(add_subcommands, *parser_kwargs)
        if not add_subcommands:
            return
        for own in self._subcommand_parsers.values():
            arrange(own)
        subcommands: Any = self.parser._subcommands_action
        for name in OTHER_COMMANDS:
            subcommands.add_subcommand(name, parser := LightningArgumentParser(description=COMMANDS[name]))
            if name == "compare":
                add_compare_arguments(parser)
        for shown in subcommands._choices_actions:
            shown.help = COMMANDS[shown.dest]

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        super().parse_arguments(parser, args)
        subcommand = self.config.get("subcommand")
        if subcommand in OTHER_COMMANDS:
            raise ProjUNNError(f"{subcommand} must be the first argument: projunn {subcommand} --help")
        config = self.config[subcommand] if subcommand else self.config
        for part in ("trainer", "projunn", "predictions"):  # jsonargparse takes anything for them
            if not isinstance(config[part], Namespace):
                raise ProjUNNError(f"{part} must be a mapping of its options, found {config[part]!r}")

    def _parse_ckpt_path(self) -> None:
        """Configure the model as the checkpoint's, where that names its class: one that Python code wrote does not."""
        subcommand = self.config.get("subcommand")
        if subcommand == "predict" and not self.config[subcommand]["ckpt_path"]:
            raise ProjUNNError(
                "predict needs a trained model, and ckpt_path is not set: pass --ckpt_path with a .ckpt file that "
                "`projunn fit` has written, in lightning_logs/version_*/checkpoints"
            )
        options = self.config[subcommand] if subcommand else {"ckpt_path": None, "weights_only": None}
        self.checkpoint = None if options["weights_only"] is False else read_checkpoint(options["ckpt_path"])
        if self.checkpoint is not None and "_class_path" in (self.checkpoint.get("hyper_parameters") or {}):
            super()._parse_ckpt_path()

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        if self.checkpoint is not None:
            path = self._get(self.config, "ckpt_path")
            check_fits(self.checkpoint, path, self.model)
            if self.subcommand == "fit" and "optimizer_states" not in self.checkpoint:
                raise ProjUNNError(f"ckpt_path {path} holds the weights only, and fit goes on from a whole checkpoint")
            self.checkpoint = None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        configured = self._get(self.config_init, "trainer.callbacks"), self.trainer_defaults.get("callbacks")
        chosen = [each for some in configured for each in (some if isinstance(some, list) else [some])]
        trainer = super().instantiate_trainer(**kwargs)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback not in chosen:
                # Ctrl-C in a first epoch of hours leaves a checkpoint to go on from. Of several processes one may be
                # stopped alone, and would wait for the others to save with it.
                callback.save_on_exception = trainer.world_size == 1
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        if any(isinstance(callback, BasePredictionWriter) for callback in chosen):
            callbacks.remove(self._get(self.config_init, "predictions"))  # it is left to the user's own
        callbacks.insert(0, RNGState())
        if trainer.loggers:
            monitors = (LearningRateMonitor, UnitarityMonitor)
            callbacks[:0] = [kind() for kind in monitors if not any(isinstance(each, kind) for each in callbacks)]
        if isinstance(bar := trainer.progress_bar_callback, RichProgressBar):
            bar.theme = replace(bar.theme, metrics_format=".3g")  # a unitarity error of 1e-7 is not 0.000
        return trainer

    @staticmethod
    def configure_optimizers(
        lightning_module: LightningModule, optimizer: Optimizer, lr_scheduler: LRSchedulerTypeUnion | None = None
    ) -> Any:
        """Give the optimizer, made before the model was set up, the parameters that there are now.

        FSDP2 replaces them, and hooks such as ``configure_model`` may add some.
        """
        held, parameters = optimizer.param_groups[0]["params"], list(lightning_module.parameters())
        if len(held) != len(parameters) or any(map(operator.is_not, held, parameters)):
            if optimizer.state:
                raise ProjUNNError(
                    f"{type(optimizer).__name__} has a state for parameters that the strategy has replaced; choose an "
                    "optimizer that starts without one"
                )
            held[:] = parameters
        return LightningCLI.configure_optimizers(lightning_module, optimizer, lr_scheduler)

    def before_fit(self) -> None:
        """Check the constraint, before a log folder is made for a run that cannot start."""
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        method = next(callback for callback in callbacks if isinstance(callback, ProjUNN))
        method.optional = True
        method.check(self.trainer, self.model)

    def after_fit(self) -> None:
        """Test the trained weights, where model and data can."""
        has_test_data = self.datamodule is None or is_overridden(
            "test_dataloader", self.datamodule, LightningDataModule
        )
        if self.trainer.interrupted or not (has_test_data and is_overridden("test_step", self.model, LightningModule)):
            return
        self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
        self.after_test()

    def before_predict(self) -> None:
        """Check that no file is written over; here, before a log folder is made."""
        for writer in self._prediction_writers:
            writer.check(self.trainer)

    def after_predict(self) -> None:
        """Print where the predictions are."""
        for writer in self._prediction_writers:
            if writer.written is not None:
                Console().print(f"predictions: {writer.written}", style="bold", highlight=False, soft_wrap=True)

    @property
    def _prediction_writers(self) -> list[PredictionWriter]:
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        return [callback for callback in callbacks if isinstance(callback, PredictionWriter)]

    def after_test(self) -> None:
        """Print the test loss beside the loss of the task's baseline, and the accuracy."""
        loss = self.trainer.callback_metrics.get("test/loss")
        if loss is None or not self.trainer.is_global_zero:
            return
        line = f"test loss {loss:.3g}"
        baseline = getattr(self.datamodule, "baseline_loss", None)
        if baseline is not None:
            line += f"  (baseline {baseline:.3g}; {100 * loss / baseline:.3g} % of it)"
        accuracy = self.trainer.callback_metrics.get("test/accuracy")
        if accuracy is not None:
            line += f"  accuracy {100 * accuracy:.4g} %"
        Console().print(line, style="bold", highlight=False)


def main() -> None:
    """Run the command line of ``sys.argv``."""
    set_parsing_settings(add_print_completion_argument=True)
    sys.path.insert(0, os.getcwd())  # a config may name a class of the user's own, as under `python -m`
    _silence_what_a_user_cannot_act_on()
    try:
        if sys.argv[1:2] and sys.argv[1] in OTHER_COMMANDS:
            command, *arguments = sys.argv[1:]
            sys.argv[1:] = []  # LightningCLI warns where there are others than its own
            OTHER_COMMANDS[command](arguments)
        else:
            run_cli()
    except SIGTERMException:  # a SystemExit of status 0
        sys.exit(128 + signal.SIGTERM)
    except ProjUNNError as error:
        if "PROJUNN_TRACEBACK" in os.environ:
            raise
        print(f"projunn: error: {error}", file=sys.stderr)
        sys.exit(2)


def run_cli(arguments: list[str] | None = None, **options: Any) -> ProjUNNCLI:
    """Run ``projunn fit``, ``validate``, ``test`` or ``predict`` on the given arguments, or those of ``sys.argv``."""
    return ProjUNNCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        save_config_callback=SaveConfig,
        parser_kwargs=parser_options(ProjUNNCLI.subcommands()),
        args=arguments,
        **options,
    )


def _silence_what_a_user_cannot_act_on() -> None:
    # The models' own optimizer is a default; that the configured one replaces it is the point.
    warnings.filterwarnings("ignore", ".*configure_optimizers` will be overridden by.*")
    # Each run has a log folder of its own, also the one that tests another run's checkpoint.
    warnings.filterwarnings("ignore", "The dirpath has changed from.*")
    # A comparison goes on where it was interrupted.
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    # Lightning 2.6 on torch 2.13.
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*", FutureWarning)
    # The models write to no output of a layer in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    # Advertisements for other products.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda r: "Tip: For" not in r.getMessage())
