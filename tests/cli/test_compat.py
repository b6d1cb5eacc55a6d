"""What is taken of other libraries beyond their public interface is still there, and nowhere else in use."""

import ast
import importlib
import inspect
import logging
import pickle
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import lightning as L
import pytest
import timm
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from packaging.requirements import Requirement
from packaging.version import Version
from timm.models import _factory, register_model
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import VisionTransformer

from attention_zoo import compat as library
from attention_zoo.cli import compat
from attention_zoo.errors import InputError

ROOT = Path(__file__).parents[2]
PACKAGES = ("attention_zoo", "tasks", "datamodules")
COMPAT = ("attention_zoo/compat.py", "attention_zoo/cli/compat.py")
LIBRARIES = ("jsonargparse", "lightning", "timm", "mmengine", "mmcv", "mmseg")
OWNERS = (LightningCLI, LightningArgumentParser, L.Trainer, L.LightningModule, L.LightningDataModule, L.Callback)
OWNERS += (VisionTransformer, NaFlexVit)
PRIVATE = {
    name
    for owner in OWNERS
    for name in (*dir(owner), "_actions", "_factory", "_typehints", "_common")
    if name.startswith("_") and not name.startswith("__") and not hasattr(torch.nn.Module, name)
}
"""Private names of the classes that the project has subclasses or objects of."""

VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2, "num_classes": 3}


def private_uses(text):
    """Lines of a module that import or touch private parts of another library, or override one."""
    tree = ast.parse(text)
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imported[alias.asname or alias.name.partition(".")[0]] = alias.name
                if alias.name.partition(".")[0] in LIBRARIES and "._" in alias.name:
                    yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in LIBRARIES:
            for alias in node.names:
                imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                if "._" in f"{node.module}.{alias.name}":
                    yield node.lineno, f"{node.module}.{alias.name}"
    for cls in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        bases = {ast.unparse(base).partition(".")[0] for base in cls.bases}
        theirs = any(imported.get(base, "").partition(".")[0] in LIBRARIES for base in bases)
        for node in cls.body:
            if isinstance(node, ast.FunctionDef) and node.name in PRIVATE and theirs:
                yield node.lineno, node.name
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE - own:
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            root = ast.unparse(node.value).partition(".")[0]
            if imported.get(root, "").partition(".")[0] in LIBRARIES:
                yield node.lineno, ast.unparse(node)


def test_no_other_module_touches_private_parts():
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    uses = {str(path.relative_to(ROOT)): list(private_uses(path.read_text())) for path in files}
    assert {name for name, found in uses.items() if found} == set(COMPAT), uses


@pytest.mark.parametrize(
    "text",
    [
        "import jsonargparse._typehints",
        "from timm.models import _factory",
        "from timm.models._factory import load_checkpoint",
        "import lightning as L\nL._x",
        "def f(model):\n    return model._pos_embed(1)",
        "from lightning.pytorch.cli import LightningCLI\nclass A(LightningCLI):\n    def _run_subcommand(self): pass",
    ],
)
def test_private_parts_are_seen(text):
    assert list(private_uses(text))


@pytest.mark.parametrize("name", ["jsonargparse", "lightning", "timm", "mmengine", "mmcv-lite"])
def test_libraries_have_a_ceiling(name):
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    found = next(Requirement(line) for line in listed if Requirement(line).name == name)
    assert any(part.operator in ("<", "<=", "==") for part in found.specifier)
    assert found.specifier.contains(Version(version(name)))


class TestTimm:
    def test_a_host_is_seen_in_its_constructor(self):
        seen = []

        class Attention(timm.layers.Attention):
            def __init__(self, *args, **kwargs):
                seen.append(library.host_in_construction())
                super().__init__(*args, **kwargs)

        host = VisionTransformer(attn_layer=Attention, **VIT)
        assert seen == [host] and library.host_in_construction() is None

    def test_a_checkpoint_is_seen_and_its_loader_replaced_for_one_call(self, tmp_path):
        stock, loaded = _factory.load_checkpoint, []
        assert stock.__module__.startswith("timm.")

        def compat_probe(pretrained=False, **kwargs):
            model = torch.nn.Linear(1, 1)
            return library.loaded_by(model, lambda *given: loaded.append(given))

        compat_probe.__module__ = __name__
        register_model(compat_probe)
        model = timm.create_model("compat_probe", checkpoint_path=str(tmp_path / "x.pth"))
        assert loaded == [(model, str(tmp_path / "x.pth"))] and _factory.load_checkpoint is stock
        timm.create_model("compat_probe")
        assert len(loaded) == 1 and _factory.load_checkpoint is stock

    def test_position_embeddings_are_added_in_a_method_of_one_name(self):
        class Shifted(library.PositionedVisionTransformer):
            def with_positions(self, x):
                return super().with_positions(x) + 1

        torch.manual_seed(0)
        plain, shifted = VisionTransformer(**VIT), Shifted(**VIT)
        shifted.load_state_dict(plain.state_dict())
        patches = plain.patch_embed(torch.rand(1, 3, 16, 16))
        torch.testing.assert_close(library.with_positions(shifted, patches), library.with_positions(plain, patches) + 1)
        assert library.with_positions(plain, patches).shape == (1, 5, 12)


class TestMmengine:
    def test_nothing_is_imported_by_its_path(self):
        registry = importlib.import_module("mmengine.registry")
        parts = registry.Registry("compat probe")
        assert parts.get("collections.OrderedDict") is not None
        with library.registered_names_only(), pytest.raises(RuntimeError, match="OrderedDict") as refused:
            parts.get("collections.OrderedDict")
        assert isinstance(refused.value.__context__, InputError)
        assert parts.get("collections.OrderedDict") is not None

    def test_operations_can_be_named_and_not_called(self):
        stand_in = library._MissingOperations(library.COMPILED)
        with pytest.raises(InputError, match="nms needs the compiled mmcv"):
            stand_in.nms(1)


class TestTorch:
    def test_what_it_says_of_files_that_run_code(self, tmp_path):
        torch.save(Path("x"), tmp_path / "x.pt")
        with pytest.raises(pickle.UnpicklingError, match=library.UNSAFE):
            torch.load(tmp_path / "x.pt", weights_only=True)

    def test_what_it_says_of_shapes(self):
        with pytest.raises(RuntimeError) as refused:
            torch.nn.Linear(2, 1).load_state_dict({"weight": torch.zeros(1, 3), "bias": torch.zeros(1)})
        assert library.shape_mismatches(str(refused.value)) == [("weight", "[1, 3]", "[1, 2]")]

    def test_more_layers_than_torch_compiles_are_compiled_inside_the_block(self):
        def compiled(number):
            graphs = []
            for size in range(1, number + 1):
                layer = Sized(size)
                layer.compile(backend=lambda graph, inputs: graphs.append(graph) or graph)
                assert layer(torch.zeros(2)).sum() == 2 * size
            return len(graphs)

        torch.compiler.reset()
        with torch._dynamo.config.patch(recompile_limit=8):  # as torch has it
            assert compiled(12) < 12  # or there is nothing to change
            with library.compiling_all(12):
                assert compiled(12) == 12
            with library.compiling_all(1), pytest.raises(Exception, match="recompile_limit_hit"):
                compiled(14)


class Sized(torch.nn.Module):
    """A layer whose graph holds a word of its own, which torch makes no variable of."""

    def __init__(self, size):
        super().__init__()
        self.word = "a" * size

    def forward(self, x):
        return x + len(self.word)


class One:
    """A class of an option."""

    def __init__(self, size: int = 1, one: int = 1) -> None:
        self.word = "a" * size


class Two(One):
    """Another class of it."""

    def __init__(self, size: int = 2) -> None:
        super().__init__(size)


class TestJsonargparse:
    @pytest.fixture
    def parser(self):
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(One, "part")
        return parser

    def test_keys(self, parser):
        parser.add_argument("--a.b", type=int)
        assert compat.keys_of(parser) == ["part", "a.b"]

    def test_arguments_of_another_class_are_dropped_inside_the_block_alone(self, parser):
        def size():
            argv = [f"--part={__name__}.One", "--part.size=5", f"--part={__name__}.Two"]
            return parser.parse_args(argv).part.init_args.size

        assert size() == 5  # or there is nothing to change
        with compat.starting_afresh(keeping=()):
            assert size() == 2
        with compat.starting_afresh(keeping=(One,)):
            assert size() == 5
        assert size() == 5

    @pytest.mark.parametrize("optional", [False, True])
    def test_items_of_mappings_in_mappings_are_set_inside_the_block_alone(self, optional):
        parser = ArgumentParser(exit_on_error=False)
        kind = dict[str, Any] | None if optional else dict[str, Any]
        parser.add_argument("--args", type=kind, default={"size": 3, "part": {"mode": "a", "deep": {"x": 1}}})
        words = ["--args.part.alpha=2.5", "--args.part.deep.y=[1, 2]", "--args.part.mode=b", "--args.own.name=c"]
        expected = {
            "size": 3,
            "part": {"mode": "b", "alpha": 2.5, "deep": {"x": 1, "y": [1, 2]}},
            "own": {"name": "c"},
        }
        assert parser.parse_args(words).args != expected  # or there is nothing to change
        with compat.nesting_mappings():
            assert parser.parse_args(words).args == expected
            assert parser.parse_args(["--args.size=4"]).args["size"] == 4
        assert parser.parse_args(words).args != expected

    def test_a_word_stays_beside_the_items_of_its_mapping_inside_the_block_alone(self):
        parser = ArgumentParser(exit_on_error=False)
        word = Literal["a", "b"]
        parser.add_argument("--args", type=word | dict[str, Any] | None, default="a")
        cases = {
            ("--args.alpha=2",): {"mode": "a", "alpha": 2},
            ("--args=b", "--args.alpha=2", "--args.deep.x=1"): {"mode": "b", "alpha": 2, "deep": {"x": 1}},
            ("--args=b", "--args.mode=a"): {"mode": "a"},
            ("--args={size: 1}", "--args.alpha=2"): {"size": 1, "alpha": 2},
            ("--args.alpha=2", "--args=b"): "b",
        }
        assert parser.parse_args(["--args.alpha=2"]).args == {"alpha": 2}  # or there is nothing to change
        with compat.nesting_mappings({word: "mode"}):
            assert {words: parser.parse_args(list(words)).args for words in cases} == cases
        with compat.nesting_mappings():
            assert parser.parse_args(["--args.alpha=2"]).args == {"alpha": 2}

    def test_imports_are_limited_inside_the_block_alone(self, parser):
        def parse():
            return parser.parse_args([f"--part={__name__}.Two"]).part.class_path

        assert parse().endswith("Two")
        with compat.importing_only(["torch"]), pytest.raises(Exception, match="is not allowed"):
            parse()
        assert parse().endswith("Two")

    def test_the_signature_that_is_replaced(self):
        module = importlib.import_module("jsonargparse._typehints")
        stock = inspect.signature(module.discard_init_args_on_class_path_change)
        assert list(stock.parameters) == ["parser_or_action", "prev_val", "value"]


class TestLightning:
    @pytest.mark.parametrize(
        ("name", "parameters"),
        [
            ("_prepare_subcommand_parser", ["self", "klass", "subcommand", "kwargs"]),
            ("_parse_ckpt_path", ["self"]),
            ("_parser", ["self", "subcommand"]),
            ("_run_subcommand", ["self", "subcommand"]),
        ],
    )
    def test_private_methods(self, name, parameters):
        assert list(inspect.signature(getattr(LightningCLI, name)).parameters) == parameters

    def test_hooks_are_called(self, tmp_path):
        added = []

        class CLI(compat.Hooks, LightningCLI):
            def add_arguments_of(self, subcommand, parser):
                added.append(subcommand)

            def run_command(self, subcommand):
                added.append(f"run {subcommand}")

        state = {"hyper_parameters": {"nonsense": 1}, "state_dict": {}}
        torch.save(state, tmp_path / "x.ckpt")
        argv = ["fit", "--ckpt_path", str(tmp_path / "x.ckpt"), "--trainer.logger=false", "--trainer.accelerator=cpu"]
        argv += ["--trainer.enable_checkpointing=false"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cli = CLI(L.LightningModule, args=argv, save_config_callback=None, seed_everything_default=0)
        assert added == ["fit", "validate", "test", "predict", "run fit"]
        assert cli.parser_of("fit").get_defaults().ckpt_path is None

    def test_launched_processes(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["x"])
        trainer = L.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, barebones=True)
        assert compat.further_processes(trainer) == []
        trainer = L.Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False)
        launcher = importlib.import_module("lightning.pytorch.strategies.launchers.subprocess_script")
        trainer.strategy._launcher = launcher._SubprocessScriptLauncher(trainer.strategy.cluster_environment, 2, 1)
        trainer.strategy.launcher.procs = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])]
        (child,) = compat.further_processes(trainer)
        compat.end_further_processes(trainer)
        assert child.wait(10) != 0
        source = inspect.getsource(launcher)
        assert "self.procs" in source and "self.procs = []" in source

    def test_launched_processes_get_the_arguments(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["x", "old"])
        compat.launch_further_processes_with(["fit", "--a", "1"])
        assert sys.argv == ["x", "fit", "--a", "1"]
        command = importlib.import_module("lightning.fabric.strategies.launchers.subprocess_script")
        assert command._basic_subprocess_cmd()[-3:] == ["fit", "--a", "1"]

    def test_loggers(self, capsys, monkeypatch):
        monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", False)  # as where nobody else logs
        names = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
        before = {n: (logging.getLogger(n).handlers[:], logging.getLogger(n).filters[:]) for n in names}
        seeds = logging.getLogger("lightning.fabric.utilities.seed").level
        try:
            with warnings.catch_warnings():
                compat.quieten()
                L.seed_everything(0)
                rank_zero = importlib.import_module("lightning.pytorch.utilities.rank_zero")
                rank_zero.rank_zero_info("Tip: buy this")
                rank_zero.rank_zero_info("told")
            ended = capsys.readouterr()
            assert (ended.out, ended.err) == ("told\n", "")
        finally:
            for n, (handlers, filters) in before.items():
                logging.getLogger(n).handlers, logging.getLogger(n).filters = handlers, filters
            logging.getLogger("lightning.fabric.utilities.seed").setLevel(seeds)


def test_torch_says_whether_a_transform_is_at_work():
    seen = []

    def watched(x):
        seen.append(library.in_transform())
        return x.sum()

    watched(torch.ones(2))
    torch.func.grad(watched)(torch.ones(2))
    assert seen == [False, True]


def test_torch_says_whether_a_gradient_stands_for_many():
    seen = []
    x = torch.ones(2, requires_grad=True)
    out = x * 2
    out.register_hook(lambda grad: seen.append(library.stands_for_many(grad)))
    torch.autograd.grad(out, x, torch.eye(2), is_grads_batched=True, retain_graph=True)
    torch.func.vmap(lambda probe: torch.autograd.grad(out, x, probe, retain_graph=True))(torch.eye(2))
    torch.autograd.grad(out, x, torch.ones(2))
    assert seen == [True, True, False]


def test_graphs_may_have_layers_that_keep_something():
    config = torch._dynamo.config
    with config.patch(skip_fwd_side_effects_in_bwd_under_checkpoint=False):
        library.allow_kept_in_graphs()
        assert config.skip_fwd_side_effects_in_bwd_under_checkpoint
