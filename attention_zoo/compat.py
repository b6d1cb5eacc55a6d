"""The places where the library uses private parts of timm, torch, mmengine and mmcv; the commands' are in `cli.compat`.

Each part says why it is needed. ``tests/cli/test_compat.py`` fails where it no longer holds in a new release, and
pyproject.toml has a ceiling for the version of each library.
"""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

import torch
from timm.models import _factory, create_model, vision_transformer
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from attention_zoo.errors import InputError

COMPILED = "mmcv._ext"
"""mmcv's module of compiled operations, which mmcv-lite does not have."""

SHAPES = re.compile(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\).*?torch\.Size\((.*?)\)")
"""The pattern of the lines in which torch says that a weight has another shape than the model's."""

UNSAFE = re.compile("Weights only load failed")
"""The pattern of torch's message that it cannot load a file without running code from it."""


def host_in_construction() -> VisionTransformer | NaFlexVit | None:
    """Return the innermost timm vision transformer whose constructor is running; None outside of one.

    timm tells an attention layer neither the model that it is built for nor its grid. Reading the frames of the
    constructor changes nothing in timm, as replacing its functions would.
    """
    for frame in _frames():
        host = frame.f_locals.get("self")
        if frame.f_code.co_name == "__init__" and isinstance(host, (VisionTransformer, NaFlexVit)):
            return host
    return None


def attn_layers() -> dict[str, Any]:
    """Return timm's table of attention layers by name, which is changed in place; an empty one if timm has none.

    A name in it is what ``attn_layer`` of ``timm.create_model`` may be, beside a class. timm has no way to add one.
    """
    table = getattr(vision_transformer, "ATTN_LAYERS", None)
    return table if isinstance(table, dict) else {}


def in_transform() -> bool:
    """Return whether a transform of ``torch.func`` is at work, which cannot enter an autograd function of ours.

    torch has no public question for it. In a graph the answer is no.
    """
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def in_backward() -> bool:
    """Return whether this runs inside a backward pass, as what gradient checkpointing computes again does.

    torch has no public question for it; its own checkpointing asks the same. In a graph the answer is no.
    """
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def stands_for_many(x: Tensor) -> bool:
    """Return whether a tensor stands for several, as gradients do under ``vmap`` or with ``is_grads_batched=True``.

    Such a tensor takes part in no operation in place, and has no memory of its own. torch has no public question for
    it. In a graph the answer is no.
    """
    functorch = torch._C._functorch
    return not torch.compiler.is_compiling() and (functorch.is_legacy_batchedtensor(x) or functorch.is_batchedtensor(x))


@contextmanager
def compiling_all(layers: int) -> Iterator[None]:
    """While the block runs, ``layers`` layers can be compiled side by side, or else an error says that one was not.

    Layers of one base class share the code of its forward pass, which torch compiles eight times; further ones it then
    runs without a graph, as slowly as ever, and no more than logs it. What was compiled before is forgotten.
    """
    torch.compiler.reset()
    config: Any = torch._dynamo.config
    limits = {"recompile_limit": 4 * layers + 8, "accumulated_recompile_limit": 4 * layers * 64}
    with config.patch(fail_on_recompile_limit_hit=True, **limits):
        yield


def allow_kept_in_graphs() -> None:
    """Let compiled graphs have checkpointed layers that keep something of a pass: from now on, in this process.

    A layer keeps a loss, moves its centroids, or hands its values on to a later layer. Computed again in the backward
    pass it is to do none of that a second time, which is what `in_backward` says outside of graphs. torch
    asks to be told so, or else breaks the graph at each such layer.
    """
    config: Any = torch._dynamo.config
    config.skip_fwd_side_effects_in_bwd_under_checkpoint = True


def requested_checkpoint() -> str | None:
    """Return the ``checkpoint_path`` that the innermost running ``timm.create_model`` got; None without one.

    timm does not pass the ``checkpoint_path`` on to the entry points of models.
    """
    for frame in _frames():
        if frame.f_code is create_model.__code__:
            return frame.f_locals["checkpoint_path"] or None
    return None


def loaded_by(model: nn.Module, load: Callable[[nn.Module, str | Path], None]) -> nn.Module:
    """Return ``model``, and have the running ``timm.create_model`` load its ``checkpoint_path`` into it by ``load``.

    timm's own loader takes the averaged weights where a file has both, and copies what fits before it complains. It
    asks no model how to load a file, so its function is replaced for this one call: it is put back when it is called,
    with this model, as the next thing that ``timm.create_model`` does. Without a ``checkpoint_path`` nothing happens.

    Args:
        model: the model that the entry point is about to return.
        load: the function that loads the file; it gets the model and the path.
    """
    if requested_checkpoint() is None:
        return model
    factory: Any = _factory
    timms = factory.load_checkpoint

    def load_once(loaded: nn.Module, path: str | Path) -> None:
        factory.load_checkpoint = timms
        (load if loaded is model else timms)(loaded, path)

    factory.load_checkpoint = load_once
    return model


def shape_mismatches(message: str) -> list[tuple[str, str, str]]:
    """Return name, shape in the file and shape in the model of each weight whose shape torch says differs."""
    return SHAPES.findall(message)


class PositionedVisionTransformer(VisionTransformer):
    """timm's ``VisionTransformer`` whose position embeddings a subclass may add in its own way.

    timm has no public method for it, so its private one leads to `with_positions`.
    """

    def with_positions(self, x: Tensor) -> Tensor:
        """Return tokens (B, N, dim) with positions, of patches (B, h, w, dim), or (B, N, dim) if the size is fixed."""
        return super()._pos_embed(x)

    def _pos_embed(self, x: Tensor) -> Tensor:
        return self.with_positions(x)


def with_positions(model: VisionTransformer, patches: Tensor) -> Tensor:
    """Return the tokens (B, N, dim) that ``model`` makes of patches, prefix tokens first; timm has no public step."""
    return model._pos_embed(patches)


@contextmanager
def registered_names_only() -> Iterator[None]:
    """While the block runs, mmengine finds parts in its registries alone, imports nothing, and reads no code.

    mmengine takes a ``type`` that no registry knows for the path of any function, imports it and calls it; it has no
    setting against that. Of the files that a part may read, pickles and YAML of mmengine's loader (which builds any
    object that a tag names) are refused, and so are checkpoints.
    """
    engine: dict[str, Any] = {
        name: importlib.import_module(f"mmengine.{name}") for name in ("registry.registry", "fileio", "runner")
    }
    handlers = engine["fileio"].handlers
    closed: tuple[tuple[Any, str, Callable[..., NoReturn]], ...] = (
        (engine["registry.registry"], "get_object_from_string", _no_object),
        (handlers.PickleHandler, "load_from_fileobj", _no_code),
        (handlers.YamlHandler, "load_from_fileobj", _no_code),
        (engine["runner"].checkpoint.CheckpointLoader, "load_checkpoint", _no_code),
    )
    with ExitStack() as block:
        for owner, name, refusal in closed:
            block.callback(setattr, owner, name, vars(owner)[name])
            setattr(owner, name, refusal)
        yield


def _no_code(*args: Any, **kwargs: Any) -> NoReturn:
    """Refuses to read a file; stands in for mmengine's readers of files that may hold code."""
    raise InputError("names a file to read that could hold code; give the values themselves, or a .json file")


def stand_in_for_operations() -> None:
    """Let mmsegmentation be imported without mmcv's compiled operations, which few of its parts call."""
    if find_spec(COMPILED) is None:
        sys.modules[COMPILED] = _MissingOperations(COMPILED)


class _MissingOperations(ModuleType):
    """Stands in for mmcv's compiled module: any operation can be named, none can be called."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*args: Any, **kwargs: Any) -> NoReturn:
            raise InputError(f"{name} needs the compiled mmcv (mmcv>=2.0,<2.2), in place of mmcv-lite")

        return refuse


def _no_object(name: str) -> NoReturn:
    """Refuses a name that no registry knows; stands in for mmengine's import by path."""
    raise InputError(f"{name!r} is no name in mmsegmentation's registries")


def _frames() -> Iterator[FrameType]:
    """Yield the frames of the calls in progress, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
