"""Turns a classifier into a program that runs without this project: that of `torch.export`, or ONNX."""

import io
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from attention_zoo.errors import InputError

FACTS = "attention_zoo.json"
"""The name under which a program keeps its facts, as JSON: among the extra files of torch, the metadata of ONNX."""

BATCHES = (1, 2, 5)
"""Numbers of random images that a program is checked on; it is made from another."""

TRACED = 3
"""The number of images that a program is made from."""

TOLERANCE = 1e-3
"""How far a program's logits may be from the model's, as a share of the largest of these, or of 1."""

OPERATION = re.compile(r"OpOverload\(op='([\w.:]+)'|\b((?:aten|torchvision|prims)[.:]+\w+(?:\.\w+)?)")
"""The pattern of the name of an operation in the messages of torch."""

Run = Callable[[Tensor], Tensor]
"""From images (B, 3, H, W) float32 to logits (B, classes)."""


def torch_program(model: nn.Module, size: tuple[int, int], facts: Mapping[str, Any]) -> bytes:
    """Return a classifier as an archive of `torch.export`, for any number of images.

    Args:
        model: the classifier, in evaluation mode.
        size: height and width of the images.
        facts: what the file keeps beside the program.

    Raises:
        InputError: `torch.export` cannot express an operation of the model.
    """
    file = io.BytesIO()
    torch.export.save(_exported(model, size, "torch"), file, extra_files={FACTS: json.dumps(facts)})
    return file.getvalue()


def onnx_program(model: nn.Module, size: tuple[int, int], facts: Mapping[str, Any]) -> bytes:
    """Return a classifier as ONNX, for any number of images; see `torch_program`.

    Raises:
        InputError: an extra is not installed, or ONNX cannot express an operation of the model.
    """
    require_onnx()
    program = _exported(model, size, "onnx")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                program,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=({0: "batch"},),  # of a program that is exported already it changes the names alone
                verbose=False,
            )
    except Exception as error:  # of many kinds, none of them public
        raise refusal("onnx", error) from error
    assert made is not None
    made.model.metadata_props[FACTS] = json.dumps(facts)
    return made.model_proto.SerializeToString()


def require_onnx() -> None:
    """Check that what writes and runs ONNX is installed.

    Raises:
        InputError: it is not.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(f'ONNX needs {" and ".join(missing)}: pip install "attention_zoo[export]"')


def run_torch(content: bytes) -> Run:
    """Return the function that a program of `torch_program` computes."""
    module = torch.export.load(io.BytesIO(content)).module()
    return lambda images: module(images)


def run_onnx(content: bytes) -> Run:
    """Return the function that a program of `onnx_program` computes, on the CPU."""
    from onnxruntime import InferenceSession

    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"image": images.numpy()})[0])


def largest_error(model: Run, program: Run, size: tuple[int, int]) -> float:
    """Return how far a program is from the model it was made of.

    It is the largest difference of logits on random images, in several batches, as a share of the largest logit, or
    of 1 where all are smaller.

    Raises:
        InputError: it is more than `TOLERANCE`.
    """
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for count in BATCHES:
        images = torch.randn(count, 3, *size, generator=generator)
        with torch.inference_mode():
            wanted, found = model(images), program(images)
        if wanted.shape != found.shape:
            raise InputError(f"the exported model is wrong: {tuple(found.shape)} for {tuple(wanted.shape)}")
        error = (wanted - found).abs().max() / wanted.abs().max().clamp(min=1)
        worst = max(worst, error.nan_to_num(nan=torch.inf).item())
    if worst > TOLERANCE:
        raise InputError(f"the exported model is wrong by {worst:.2g} of its largest logit on random images")
    return worst


def _exported(model: nn.Module, size: tuple[int, int], format: str) -> torch.export.ExportedProgram:
    images = torch.randn(TRACED, 3, *size, generator=torch.Generator().manual_seed(1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(model, (images,), dynamic_shapes=({0: Dim("batch")},))
    except Exception as error:  # of many kinds, most of them not public
        raise refusal(format, error) from error


def refusal(format: str, error: BaseException) -> InputError:
    """Return the error for a model that a format cannot express; it names the operation where torch does."""
    causes = list(_chain(error))
    found = next((match for cause in reversed(causes) if (match := OPERATION.search(str(cause)))), None)
    reason = next((line for cause in reversed(causes) for line in str(cause).splitlines() if line.strip()), "")
    what = f"operation {found[1] or found[2]}" if found else "it"
    return InputError(f"--format {format} cannot express the model: {what}: {' '.join(reason.split())[:200]}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
