"""What `gpu.py` measures, section by section: each item is a name and a function that returns its row."""

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import timm
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from released_vars import ReleasedDotProduct, ReleasedPerformer, ReleasedVarsD, ReleasedVarsS, ReleasedVarsSD
from timm.layers import Attention
from torch import Tensor, nn
from torch.utils.benchmark import Timer

import attention_zoo as az
from attention_zoo.analysis.timing import backward, forward, peak_memory
from attention_zoo.functional.attention import attend
from datamodules import CIFAR10, Digits
from tasks import Classification

Row = dict[str, float | str | bool]
Item = tuple[str, Callable[[], Row]]
OPTIONS: dict[str, dict[str, object]] = {
    "Probabilistic, keys adapt": {"key_adaptation": 1},
    "Probabilistic, keys adapt in a window": {"key_adaptation": 1, "window": 7},
    "Probabilistic, distance prior": {"distance_precision": 0.1},
    "Probabilistic, factored positions": {"positions": "factored"},
}
"""Options of mixers that take other kernels than the defaults do, by the names of their rows."""


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how large it is; the defaults are for a GPU."""

    device: str
    sides: tuple[int, ...] = (14, 32, 64, 128, 256)
    """Sides of the square grids of tokens."""
    tokens: int = 65_536
    """Tokens of a batch."""
    width: int = 384
    heads: int = 6
    batch: int = 128
    image: int = 224
    depth: int = 12
    """Layers of the ViT-S; fewer only to see that it runs."""
    seconds: float = 0.1
    """How long one call is timed."""
    training_seconds: float = 40.0
    """How long each reading of the last section trains."""
    data: Path | None = None
    """CIFAR-10, see `datamodules.CIFAR10`; None is the digits inside scikit-learn."""

    @property
    def half(self) -> torch.autocast:
        """Autocast to bfloat16 on a GPU; on a CPU nothing changes."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda")

    def mixers(self) -> Iterator[tuple[str, Callable[..., az.SelfMixer]]]:
        """Yield the name of a row, and what builds its mixer for a square grid of tokens."""
        chosen = {name: (name, {}) for name in az.list_mixers("self")}
        chosen |= {row: (row.partition(",")[0], options) for row, options in OPTIONS.items()}
        for row, (name, options) in chosen.items():

            def build(side: int, of: str = name, with_options: dict = options, **made: object) -> az.SelfMixer:
                torch.manual_seed(0)
                return az.create_mixer(of, self.width, self.heads, grid=(side, side), **with_options, **made)

            yield row, build

    def milliseconds(self, call: Callable[[], object]) -> float:
        """Return the median time of a call."""
        return Timer("call()", globals={"call": call}).blocked_autorange(min_run_time=self.seconds).median * 1e3


def correctness(sizes: Sizes) -> Iterator[Item]:
    """Yield the errors of each mixer and its gradients, in float32 and bfloat16, against float64 on the CPU.

    The gradients are those by the tokens, and those by all parameters together.
    """
    side = sizes.sides[0]
    mask = torch.rand(side**2, side**2, generator=torch.Generator().manual_seed(2)) > 0.3
    for row, build in sizes.mixers():
        yield row, lambda build=build: _errors(sizes, build(side), side**2, None)
        if az.MIXERS[row.partition(",")[0]].mix_masked is not az.SelfMixer.mix_masked:
            yield f"{row}, masked", lambda build=build: _errors(sizes, build(side), side**2, mask)


def _errors(sizes: Sizes, mixer: az.SelfMixer, number: int, mask: Tensor | None) -> Row:
    x = torch.randn(2, number, sizes.width, generator=torch.Generator().manual_seed(1))
    expected = _output_and_gradients(copy.deepcopy(mixer).double(), x.double(), mask)
    found: Row = {}
    for name, dtype, most in (("float32", torch.float32, 1e-3), ("bfloat16", torch.bfloat16, 0.3)):
        with torch.autocast(sizes.device, dtype, enabled=dtype != torch.float32):
            there = None if mask is None else mask.to(sizes.device)
            outputs = _output_and_gradients(copy.deepcopy(mixer).to(sizes.device), x.to(sizes.device), there)
        pairs = zip(outputs, expected, strict=True)
        errors = [float((a.cpu().double() - b).norm() / b.norm().clamp(min=1e-12)) for a, b in pairs]
        columns = [f"{name} {what}" for what in ("output", "gradient by tokens", "by parameters")]
        found |= dict(zip(columns, errors, strict=True)) | {f"{name} right": max(errors) < most}
    return found


def _output_and_gradients(mixer: az.SelfMixer, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    learned = [x.requires_grad_(), *mixer.parameters()]
    out = mixer(x) if mask is None else mixer(x, attn_mask=mask)
    loss = out.double().sin().sum()
    by_tokens, *others = torch.autograd.grad(loss, learned, allow_unused=True, materialize_grads=True)
    return out.detach(), by_tokens, torch.cat([gradient.flatten() for gradient in others])


def kernels(sizes: Sizes) -> Iterator[Item]:
    """Yield the time of attention with a logsumexp, a mask or a bias of keys, over that of torch's attention."""
    dtype = torch.bfloat16 if sizes.device == "cuda" else torch.float32
    for side in sizes.sides:
        number = side * side
        shape = (max(1, sizes.tokens // number), sizes.heads, number, sizes.width // sizes.heads)
        for what in ("nothing", "key bias", "mask"):
            if what != "mask" or number <= 16_384:
                yield f"{number} tokens, {what}", lambda s=shape, w=what: _attend_row(sizes, s, w, dtype)


def _attend_row(sizes: Sizes, shape: tuple[int, ...], what: str, dtype: torch.dtype) -> Row:
    make = {"device": sizes.device, "dtype": dtype}
    q, k, v = (torch.randn(shape, **make, requires_grad=True) for _ in range(3))
    key_bias = torch.randn(shape[:3], **make, requires_grad=True) if what == "key bias" else None
    mask = torch.randn(shape[2], shape[2], **make) if what == "mask" else None

    def ours() -> None:
        out, lse = attend(q, k, v, 0.125, key_bias=key_bias, mask=mask)
        (out.float().sum() + lse.sum()).backward()

    def torchs() -> None:
        F.scaled_dot_product_attention(q, k, v, mask, scale=0.125).float().sum().backward()

    times = [sizes.milliseconds(call) for call in (ours, torchs)]
    return {"ms": times[0], "over torch": times[0] / times[1], "MB": _megabytes(ours, sizes)}


def tokens(sizes: Sizes) -> Iterator[Item]:
    """Yield time and memory of each mixer from few tokens to many, the batch as many times smaller; timm's first."""
    for side in sizes.sides:
        torch.manual_seed(0)
        yield (
            f"{side * side} tokens, timm",
            lambda side=side: _mixer_row(sizes, Attention(sizes.width, sizes.heads, qkv_bias=True), side),
        )
        for row, build in sizes.mixers():
            yield f"{side * side} tokens, {row}", lambda build=build, side=side: _mixer_row(sizes, build(side), side)


def _mixer_row(sizes: Sizes, mixer: nn.Module, side: int) -> Row:
    mixer = mixer.to(sizes.device)
    x = torch.randn(max(1, sizes.tokens // side**2), side**2, sizes.width, device=sizes.device)

    def casting(call: Callable[[], object]) -> Callable[[], None]:
        def cast() -> None:
            with sizes.half:
                call()

        return cast

    evaluate, train = casting(forward(mixer, x)), casting(backward(mixer, x.requires_grad_()))
    return {
        "forward ms": sizes.milliseconds(evaluate),
        "training ms": sizes.milliseconds(train),
        "training MB": _megabytes(train, sizes),
    }


RESTATED = {
    "DotProduct": (ReleasedDotProduct, {}),
    "Performer": (ReleasedPerformer, {"variant": "released"}),
    "VarsD": (ReleasedVarsD, {"variant": "released"}),
    "VarsS": (ReleasedVarsS, {"variant": "released"}),
    "VarsSD": (ReleasedVarsSD, {"variant": "released"}),
}
"""Mixers of which the authors' layers are restated, with the options by which ours compute the same."""


def released(sizes: Sizes) -> Iterator[Item]:
    """Yield time and memory of mixers beside their authors' layers, with the same weights, at the first two sides."""
    for side in sizes.sides[:2]:
        for name in RESTATED:
            yield f"{side * side} tokens, {name}", lambda side=side, name=name: _released_row(sizes, side, name)


def _released_row(sizes: Sizes, side: int, name: str) -> Row:
    restated, options = RESTATED[name]
    torch.manual_seed(0)
    ours = az.create_mixer(name, sizes.width, sizes.heads, grid=(side, side), **options).to(sizes.device)
    theirs = restated(ours)
    x = torch.randn(max(1, sizes.tokens // 4 // side**2), side**2, sizes.width, device=sizes.device)
    with torch.no_grad():
        apart = float((ours.eval()(x) - theirs.eval()(x)).norm() / theirs(x).norm())
    calls = [backward(layer.train(), x.requires_grad_()) for layer in (ours, theirs)]
    times, memory = ([of(call) for call in calls] for of in (sizes.milliseconds, lambda call: _megabytes(call, sizes)))
    return {
        "training ms": times[0],
        "time over released": times[0] / times[1],
        "training MB": memory[0],
        "memory over released": memory[0] / max(memory[1], 1e-9),
        "apart": apart,
    }


def _megabytes(call: Callable[[], object], sizes: Sizes) -> float:
    return peak_memory(call, sizes.device) / 2**20


def _vit(sizes: Sizes, mixer: str | None) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", img_size=sizes.image, depth=sizes.depth)
    return (az.swap_mixers(model, mixer) if mixer else model).to(sizes.device)


def training(sizes: Sizes) -> Iterator[Item]:
    """Yield the images that ViT-S trains on a second, with timm's attention and with each mixer."""
    for mixer in (None, *az.list_mixers("self")):
        yield mixer or "timm", lambda mixer=mixer: _training_row(sizes, _vit(sizes, mixer), False)


def compiled(sizes: Sizes) -> Iterator[Item]:
    """Yield the images that a compiled ViT-S trains on a second, with timm's attention and three mixers."""
    for mixer in (None, "DotProduct", "VarsD", "Probabilistic"):
        yield mixer or "timm", lambda mixer=mixer: _training_row(sizes, _vit(sizes, mixer), True)


def _training_row(sizes: Sizes, model: nn.Module, compile: bool) -> Row:
    if compile:
        torch.compiler.reset()
        model.compile()
    optimizer = torch.optim.AdamW(model.train().parameters(), 1e-4, fused=True)
    images = torch.randn(sizes.batch, 3, sizes.image, sizes.image, device=sizes.device)
    labels = torch.randint(1000, (sizes.batch,), device=sizes.device)

    def step() -> None:
        optimizer.zero_grad()
        with sizes.half:
            loss = F.cross_entropy(model(images).float(), labels)
        loss.backward()
        optimizer.step()

    step()
    return {"images/s": 1e3 * sizes.batch / sizes.milliseconds(step), "MB": _megabytes(step, sizes)}


def evaluation(sizes: Sizes) -> Iterator[Item]:
    """Yield the images that ViT-S classifies a second, with timm's attention and with each mixer."""
    for mixer in (None, *az.list_mixers("self")):
        yield mixer or "timm", lambda mixer=mixer: _evaluation_row(sizes, _vit(sizes, mixer))


def _evaluation_row(sizes: Sizes, model: nn.Module) -> Row:
    images = torch.randn(2 * sizes.batch, 3, sizes.image, sizes.image, device=sizes.device)
    classify = forward(model, images)

    def call() -> None:
        with sizes.half:
            classify()

    return {"images/s": 1e3 * len(images) / sizes.milliseconds(call), "MB": _megabytes(call, sizes)}


class Steps(Callback):
    """Notes the seconds between training steps."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *args: object) -> None:
        """Note when a step ended."""
        self.ends.append(time.perf_counter())


def cifar(sizes: Sizes) -> Iterator[Item]:
    """Yield the accuracy that four readings reach on CIFAR-10 in the same time, by one fast schedule."""
    for name, options in (
        ("DotProduct", {}),
        ("VarsD", {}),
        ("Probabilistic", {"key_adaptation": 1}),
        ("KMeans", {}),
    ):
        yield name, lambda name=name, options=options: _learning_row(sizes, name, options)


def _learning_row(sizes: Sizes, name: str, options: dict[str, object]) -> Row:
    L.seed_everything(0, verbose=False)
    steps, started = Steps(), time.perf_counter()
    if sizes.data is None:
        data = Digits(batch_size=64, num_workers=0)
        small = {"patch_size": 2, "embed_dim": 64, "depth": 2, "num_heads": 4}
    else:
        data = CIFAR10(str(sizes.data), batch_size=256, num_workers=4)
        small = {"patch_size": 4, "embed_dim": 192, "depth": 6, "num_heads": 3}
    task = Classification(
        "vit_tiny_patch16_224",
        10,
        (data.IMAGE_SIZE, data.IMAGE_SIZE),
        mixer=lambda dim, num_heads, **host: az.create_mixer(name, dim, num_heads, **options, **host),
        model_args=small,
    )
    trainer = L.Trainer(
        accelerator="gpu" if sizes.device == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if sizes.device == "cuda" else "32-true",
        max_epochs=20,
        max_time={"seconds": sizes.training_seconds},
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        callbacks=[steps],
    )
    trainer.fit(task, data)
    accuracy = trainer.test(task, data, verbose=False)[0]["test/accuracy"]
    between = [b - a for a, b in zip(steps.ends, steps.ends[1:], strict=False)]
    rate = data.batch_size / statistics.median(between) if between else math.nan
    return {
        "accuracy": accuracy,
        "epochs": trainer.current_epoch,
        "images/s": rate,
        "seconds": time.perf_counter() - started,
    }
