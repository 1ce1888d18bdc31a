"""LightningCLI with the ProjUNN callback always on and the task's baseline beside the test loss."""

from __future__ import annotations

import functools
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import lightning
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BasePredictionWriter,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    RichModelSummary,
    RichProgressBar,
)
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden

from projunn_lightning import data, models  # noqa: F401  # a config names their classes without the modules
from projunn_lightning._compat import (
    averages_put_aside,
    hide_hyperparameter,
    print_results,
    set_subcommand_help,
    subcommands,
    trainer_callbacks,
    wrap_instantiators,
)
from projunn_lightning.callbacks import PredictionWriter, ProjUNN, RNGState, UnitarityMonitor
from projunn_lightning.cli import runs
from projunn_lightning.cli.baseline import baseline_of
from projunn_lightning.cli.best_checkpoint import BestCheckpoint
from projunn_lightning.cli.board import BoardLogger
from projunn_lightning.cli.checkpoint import REMEDY, Resumed, check_fits, read_checkpoint
from projunn_lightning.cli.configs import ConfigFile
from projunn_lightning.cli.described import predictions_in
from projunn_lightning.cli.ending import how_it_went, result_line, say, where_it_is
from projunn_lightning.cli.exchange import leave_out_options_of_another_layer
from projunn_lightning.cli.help import Parser, arrange, parser_options
from projunn_lightning.cli.last_validation import LastValidation
from projunn_lightning.cli.loggers import place_loggers, run_folder
from projunn_lightning.cli.making import REFUSALS, make_optimizer, make_optimizers, making
from projunn_lightning.cli.model_table import ModelTable
from projunn_lightning.cli.options import options_of
from projunn_lightning.cli.progress_bar import RunBar
from projunn_lightning.cli.report import Report, near
from projunn_lightning.errors import ConfigError, ProjUNNError


@dataclass(frozen=True)
class Command:
    """A subcommand of ``projunn``.

    Args:
        summary: the line that ``projunn --help`` shows.
        run: is called with the arguments that follow the name of the subcommand.
        add_arguments: adds the arguments of the subcommand to a parser, from which the shell completion is made.
    """

    summary: str
    run: Callable[[list[str]], object]
    add_arguments: Callable[[ArgumentParser], object] = lambda parser: None


def run_cli(
    arguments: list[str] | None = None, *, commands: Mapping[str, Command] | None = None, **options: Any
) -> ProjUNNCLI:
    """Run ``projunn fit``, ``validate``, ``test`` or ``predict``.

    Args:
        arguments: the command line after ``projunn``; None for ``sys.argv[1:]``.
        commands: all subcommands of ``projunn`` by name, for the help and the shell completion.
        options: further options of LightningCLI.

    Raises:
        ProjUNNError: if something that the arguments say cannot be used.
    """
    commands = commands or {}
    summaries = {name: command.summary for name, command in commands.items()}
    try:
        return ProjUNNCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=SaveConfig,
            parser_class=Parser,
            parser_kwargs=parser_options(ProjUNNCLI.subcommands(), summaries),
            args=arguments,
            commands=commands,
            **options,
        )
    except SIGTERMException:  # it is a SystemExit without a status, which would report success
        sys.exit(128 + signal.SIGTERM)


class SaveConfig(SaveConfigCallback):
    """Saves the config in the run's folder. Without a logger it saves none, and leaves the working folder as it is."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.loggers:
            self.save_to_log_dir = run_folder(trainer) == trainer.log_dir
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the config of a logger whose ``log_dir`` is not the folder of the run."""
        if not self.save_to_log_dir:
            folder = Path(run_folder(trainer))
            folder.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, folder / self.config_filename, skip_none=False, overwrite=True)


class ProjUNNCLI(LightningCLI):
    """fit, validate, test and predict for any LightningModule and LightningDataModule, named by class path.

    Args:
        args: positional arguments of LightningCLI.
        commands: all subcommands of ``projunn``. Those that do not go through LightningCLI are shown in the help and
            in the shell completion beside the others.
        options: keyword arguments of LightningCLI.
    """

    def __init__(self, *args: Any, commands: Mapping[str, Command] | None = None, **options: Any) -> None:
        self.commands = commands or {}
        self._refusal: ProjUNNError | None = None
        self._resumed: Resumed | None = None
        self._report = Report()
        super().__init__(*args, **options)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        kwargs.setdefault("dump_header", [f"lightning.pytorch=={lightning.__version__}"])
        parser = self.parser_class(**kwargs)
        parser.add_argument(
            "-c", "--config", action=ConfigFile, help="A YAML file, or the name of one that `projunn configs` lists."
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(ProjUNN, "projunn")
        parser.add_lightning_class_args(PredictionWriter, "predictions")

    def setup_parser(self, add_subcommands: bool, *parser_kwargs: Any) -> None:
        super().setup_parser(add_subcommands, *parser_kwargs)
        if not add_subcommands:
            return
        action = subcommands(self.parser)
        for name, parser in action.choices.items():
            if name in runs.COMMANDS:
                runs.add_run_option(parser)
            arrange(parser)
        for name, command in self._other_commands.items():
            action.add_subcommand(name, parser := LightningArgumentParser(description=command.summary))
            command.add_arguments(parser)
        set_subcommand_help(self.parser, {name: command.summary for name, command in self.commands.items()})

    @property
    def _other_commands(self) -> dict[str, Command]:
        return {name: command for name, command in self.commands.items() if name not in self.subcommands()}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        if not isinstance(args, dict | Namespace):
            args = runs.expanded(sys.argv[1:] if args is None else args)
        super().parse_arguments(parser, args)
        self._arguments = args
        name = self.config.get("subcommand")
        if name in self._other_commands:
            raise ConfigError(f"{name} must be the first argument: projunn {name} --help")
        for part in ("trainer", "projunn", "predictions"):  # jsonargparse takes any value for them
            if not isinstance(value := self._options(self.config)[part], Namespace):
                raise ConfigError(f"{part} must be a mapping of its options, found {value!r}")
        if not isinstance(args, dict | Namespace):
            leave_out_options_of_another_layer(self._options(self.config)["model"], args)
        place_loggers(self._options(self.config)["trainer"], self._given.get("trainer") or Namespace())

    def _options(self, config: Namespace) -> Namespace:
        """The part of a config that holds the options of the chosen subcommand, or all of it without subcommands."""
        return config[config["subcommand"]] if "subcommand" in config else config

    @functools.cached_property
    def _given(self) -> Namespace:
        """The options that the user has set, in a config or on the command line, without the defaults."""
        args = self._arguments
        if isinstance(args, dict | Namespace):
            return self._options(self.parser.parse_object(args, defaults=False))
        return self._options(self.parser.parse_args(args, defaults=False))

    def _parse_ckpt_path(self) -> None:
        """Check the checkpoint, and configure the model as in the checkpoint if that names the model's class.

        The options that the user has set stay as they are. LightningCLI's method would replace them. It also takes the
        hyperparameters of a checkpoint that Python code has written, which do not name the class, and fails.
        """
        options = self._options(self.config)
        path = options.get("ckpt_path")
        if self.config.get("subcommand") == "predict" and not path:
            raise ConfigError(f"predict needs a trained model, and ckpt_path is not set; {REMEDY}")
        if not path or options.get("weights_only") is False:
            return
        checkpoint = read_checkpoint(path)
        if checkpoint is None:
            return
        self._resumed = Resumed(checkpoint, path)
        if others := self._resumed.hyperparameters(self._given["model"]):
            self.config = self.parser.parse_object({self.config["subcommand"]: {"model": others}}, self.config)

    def _set_seed(self) -> None:
        """Seed the random numbers, and with them the data and the sketches, unless these have a seed of their own."""
        with making("seed_everything"):
            super()._set_seed()
        options, given = self._options(self.config), self._given
        for name in ("data.init_args.seed", "projunn.seed"):
            if options["seed_everything"] is not False and name in options and name not in given:
                options[name] = options["seed_everything"]

    def _add_instantiators(self) -> None:
        """Let every class of the config be made by a function that names the class in an error."""
        super()._add_instantiators()
        self.parser.add_instantiator(_make_board, TensorBoardLogger)
        self.parser.add_instantiator(lambda kind, *args, **kwargs: kind(*args, **kwargs), object)
        wrap_instantiators(self.parser, self._naming_the_class)

    def _naming_the_class(self, instantiator: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(instantiator)  # jsonargparse looks at the signature
        def make(kind: type, *args: Any, **kwargs: Any) -> Any:
            try:
                # A logger of another service refuses settings by errors of its own.
                with making(kind.__name__, Exception if issubclass(kind, Logger) else REFUSALS):
                    return instantiator(kind, *args, **kwargs)
            except ProjUNNError as error:
                self._refusal = error
                raise

        return make

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            if isinstance(error, ProjUNNError) or self._refusal is None:
                raise
            # jsonargparse has put the text of this error into one of its own, among those of other types in a Union.
            raise self._refusal from self._refusal.__cause__
        for part in (self.model, self.datamodule):
            if part is not None:
                hide_hyperparameter(part, "_instantiator")
        if self._resumed is not None:
            check_fits(self._resumed.checkpoint, self._resumed.path, self.model, self._resumed.differing)
            if self.subcommand == "fit":
                configured = self._options(self.config_init)["optimizer"]
                optimizer = make_optimizer(self.model, configured) if configured else None
                self._resumed.check_training(self._given, optimizer)

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        """Give the model the optimizer and the scheduler of the config.

        LightningCLI's method makes them here, once. Afterwards FSDP2 replaces the parameters, and ``configure_model``
        may add some. Therefore they are made when Lightning asks for them, and here only to see whether they can be.
        """
        options = self._options(self.config_init)
        if options["optimizer"]:
            make = functools.partial(
                make_optimizers, optimizer=options["optimizer"], lr_scheduler=options["lr_scheduler"]
            )
            make(self.model)
            functools.update_wrapper(make, make_optimizers)  # Lightning looks whether the method is overridden
            self.model.configure_optimizers = MethodType(make, self.model)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        configured = self._options(self.config_init)["trainer"]["callbacks"], self.trainer_defaults.get("callbacks")
        chosen = [each for some in configured for each in (some if isinstance(some, list) else [some])]
        with making("Trainer"):
            trainer = super().instantiate_trainer(**self._default_logger(), **kwargs)
        self._arrange_callbacks(trainer, chosen)
        self._replace_callbacks(trainer, chosen)
        return trainer

    def _default_logger(self) -> dict[str, Any]:
        """The logger of a run whose config names none, as an option of the trainer."""
        options = self._options(self.config_init)["trainer"]
        if options["logger"] not in (None, True) or options["barebones"]:
            return {}
        return {"logger": BoardLogger(options["default_root_dir"] or Path.cwd(), version=SLURMEnvironment.job_id())}

    def _replace_callbacks(self, trainer: Trainer, chosen: list[Any]) -> None:
        """Put callbacks of the command in the place of those that Lightning adds by itself."""
        # Ctrl-C in the first epoch, which may take hours, leaves a checkpoint to go on from. One of several processes
        # may be stopped alone, and would wait for the others to save with it.
        last = ModelCheckpoint(filename="last", save_on_exception=trainer.world_size == 1)
        own: dict[type, list[Callback]] = {
            ModelCheckpoint: [BestCheckpoint(), last],
            RichModelSummary: [ModelTable()],
            ModelSummary: [ModelTable()],
            RichProgressBar: [RunBar()],
        }
        callbacks = trainer_callbacks(trainer)
        callbacks[:] = [
            new for each in callbacks for new in ([each] if each in chosen else own.get(type(each), [each]))
        ]

    def _arrange_callbacks(self, trainer: Trainer, chosen: list[Any]) -> None:
        """Add the callbacks that every run has, but none of a kind that the user has chosen."""
        callbacks = trainer_callbacks(trainer)
        if any(isinstance(callback, BasePredictionWriter) for callback in chosen):
            callbacks.remove(self._options(self.config_init)["predictions"])
        callbacks[:0] = [RNGState(), LastValidation(), self._report]
        if self._resumed is not None:
            callbacks.insert(0, self._resumed)
        if trainer.loggers:
            # Without an interval, the rate of an optimizer without a schedule is logged twice in the first step.
            monitors: list[Callback] = [LearningRateMonitor("step"), UnitarityMonitor()]
            callbacks[:0] = [own for own in monitors if not any(isinstance(each, type(own)) for each in callbacks)]

    def before_fit(self) -> None:
        """Check the constraint before the run creates a log folder."""
        method = self._options(self.config_init)["projunn"]
        method.optional = True
        method.check(self.trainer, self.model)

    def after_fit(self) -> None:
        """Test the best weights, if the model and the data can be tested, and say how the run went and where it is."""
        if self.trainer.interrupted:
            return
        best = self._best_checkpoint()  # and the lines, before the test restores the callbacks of that checkpoint
        of_the = f"best checkpoint, {near(best)}" if best else f"last weights: {self._report.why_last(self.trainer)}"
        went, files = how_it_went(self._report), where_it_is(self.trainer, self.datamodule, best)
        validated = [name for name in self.trainer.callback_metrics if name.startswith("val")]
        tested = self._test(best)
        self._log_options(validated)
        if self.trainer.is_global_zero:
            for line in went:
                say(line)
            if tested:
                self.after_test()
                say(f"  of the {of_the}")
            for line in files:
                say(line)

    def _best_checkpoint(self) -> str | None:
        """The path of the best checkpoint, or None. Rank 0 decides, because the metrics of ranks may differ."""
        found = self._report.best_checkpoint()
        path = "" if found is None else str(found.at)
        there = bool(path) and self.trainer.is_global_zero and Path(path).exists()
        chosen: str | None = self.trainer.strategy.broadcast(path if there else None)
        return chosen

    def _test(self, best: str | None) -> bool:
        """Test the best checkpoint, or else the last weights; False if the model or the data cannot be tested."""
        has_test_data = self.datamodule is None or is_overridden(
            "test_dataloader", self.datamodule, LightningDataModule
        )
        if not (has_test_data and is_overridden("test_step", self.model, LightningModule)):
            return False
        # A file that this run has written may hold hyperparameters of any type.
        own = best is not None and self._report.has_written(best)
        options = {"weights_only": False if own else self._options(self.config_init).get("weights_only")}
        with averages_put_aside(self.trainer):
            results = self.trainer.test(
                self.model, datamodule=self.datamodule, ckpt_path=best, verbose=False, **options
            )
        if "test/loss" not in self.trainer.callback_metrics:
            print_results(results)
        return True

    def _log_options(self, validated: list[str]) -> None:
        """Write the page HParams of TensorBoard: the options of the run beside its validation and its test."""
        metrics = [*validated, *(name for name in self.trainer.callback_metrics if name.startswith("test"))]
        for logger in self.trainer.loggers:
            if isinstance(logger, BoardLogger) and metrics:
                logger.log_result(options_of(self.trainer, self.model, self.datamodule), metrics)

    def after_test(self) -> None:
        """Print the test loss beside the loss of the task's baseline, and the accuracies."""
        line = result_line(self.trainer.callback_metrics, baseline_of(self.model, self.datamodule))
        if line is not None and self.trainer.is_global_zero:
            say(line, style="bold")

    def before_predict(self) -> None:
        """Check that no file would be overwritten, before the run creates a log folder."""
        for writer in self._prediction_writers():
            writer.check(self.trainer)

    def after_predict(self) -> None:
        """Print the path of the predictions."""
        for writer in self._prediction_writers():
            if writer.written is not None:
                say(f"predictions: {writer.written}, {predictions_in(writer.written)}", style="bold")

    def _prediction_writers(self) -> list[PredictionWriter]:
        return [callback for callback in trainer_callbacks(self.trainer) if isinstance(callback, PredictionWriter)]


def _make_board(kind: type[TensorBoardLogger], *args: Any, **options: Any) -> TensorBoardLogger:
    """Make the command's own kind of a TensorBoardLogger of the config; a subclass of it stays what it is."""
    return (BoardLogger if kind is TensorBoardLogger else kind)(*args, **options)
