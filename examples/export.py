"""Export of a trained model: write it to files that run without this package, by torch.export and as ONNX.

    python examples/export.py lightning_logs/version_0/checkpoints/best.ckpt

The program writes the files ``model.pt2`` and ``model.onnx`` of a SequenceModel.
[Export](../docs/export.md) explains the steps.
"""

import sys

import torch

from projunn_lightning import SequenceModel


def export(checkpoint: str, steps: int = 8) -> None:
    """Export the model of a checkpoint. The files take any number of sequences and any number of steps."""
    model = SequenceModel.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    example = torch.zeros(2, steps, dtype=torch.long)  # a task with features needs (B, T, input_size) instead
    open_sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}
    program = torch.export.export(model, (example,), dynamic_shapes=(open_sizes,))
    torch.export.save(program, "model.pt2")
    torch.onnx.export(program, (), "model.onnx", dynamo=True, external_data=False)


if __name__ == "__main__":
    export(sys.argv[1])
