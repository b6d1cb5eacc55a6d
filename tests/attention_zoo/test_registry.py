import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import timm

import attention_zoo as az
from attention_zoo import registry

ROOT = Path(az.__file__).parents[1]


def test_lists_by_kind():
    assert {"DotProduct", "Performer", "Probabilistic", "VarsD"} <= set(az.list_mixers("self"))
    assert az.list_mixers() == sorted(az.list_mixers("self") + az.list_mixers("cross"))
    with pytest.raises(az.InputError, match="kind of mixer 'both'.*cross, self"):
        az.list_mixers("both")


@pytest.mark.parametrize("name", az.list_mixers())
def test_info_is_complete(name):
    info = az.mixer_info(name)
    assert info.name == name
    assert all((info.reading, info.paper, info.equation, info.complexity))
    for option in info.options:
        assert option.type and option.name not in az.HostOptions.__annotations__


def test_options_are_those_of_the_reading():
    assert [o.name for o in az.mixer_info("VarsD").options] == ["steps", "lam", "feature_ratio", "variant"]
    assert az.mixer_info("VarsD").options[2] == registry.Option("feature_ratio", "float", 2.0)
    assert az.mixer_info("DotProduct").options == ()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: az.create_mixer("VarD", 12), "unknown mixer 'VarD'; did you mean 'VarsD'. choose from: .*DotProduct"),
        (lambda: az.create_mixer("varsd", 12), "did you mean 'VarsD'"),
        (lambda: az.create_mixer("VarsD", 12, 2, stepz=3), "VarsD 'stepz'; did you mean 'steps'.*lam"),
        (lambda: az.mixer_info("Nope"), "unknown mixer 'Nope'"),
        (lambda: az.attn_layer("VarsD", lamda=0.1), "'lamda'; did you mean 'lam'"),
        (lambda: az.register(int), "SelfMixer and CrossMixer"),
        (lambda: az.create_mixer(3, 12), "mixer 3 is no name"),
        (lambda: az.create_mixer("VarsD", 12.5), "dim=12.5 must be a whole number"),
        (lambda: az.create_mixer("VarsD", 12, "2"), "num_heads='2' must be a whole number"),
        (lambda: az.create_mixer("VarsD", 12, 2, steps="3"), "VarsD refuses steps='3'"),
        (lambda: az.create_mixer("VarsD", 12, 2, grid=3), "VarsD refuses grid=3"),
        (lambda: az.mixer_info(None), "mixer None is no name"),
    ],
)
def test_errors_name_the_choices(call, message):
    with pytest.raises(az.InputError, match=message):
        call()


class Identity(az.SelfMixer):
    reading, paper, equation, complexity = "none", "none", "v", "N"

    def __init__(self, dim, num_heads=8, *, gain: float = 1.0, **host):
        super().__init__(dim, num_heads, **host)
        self.gain = gain

    def mix(self, q, k, v):
        return self.gain * v


class TestRegister:
    @pytest.fixture(autouse=True)
    def own_registry(self):
        before = az.list_mixers()
        with registry.registering():
            yield
        assert az.list_mixers() == before

    def test_a_new_mixer_is_known_by_its_name(self):
        assert az.register(Identity) is Identity
        assert "Identity" in az.list_mixers("self")
        assert az.create_mixer("Identity", 12, 2, gain=2.0).gain == 2.0

    def test_a_name_is_taken_once(self):
        az.register(Identity)
        with pytest.raises(az.InputError, match="'Identity' is registered already"):
            az.register(Identity)

    def test_a_mixer_says_where_it_comes_from(self):
        class Bare(az.SelfMixer):
            def mix(self, q, k, v):
                return v

        with pytest.raises(az.InputError, match="'Bare' must state.*reading, paper, equation, complexity"):
            az.register(Bare)


OWN = """
import attention_zoo as az

CALLED = []


class Gain(az.SelfMixer):
    def __init__(self, dim, num_heads=8, *, gain: float = 1.0, **host):
        super().__init__(dim, num_heads, **host)
        self.gain = gain

    def mix(self, q, k, v):
        return self.gain * v


class Half(az.SelfMixer):
    pass


def function(*args, **kwargs):
    CALLED.append(args)
"""


@pytest.fixture(scope="module")
def own_package(tmp_path_factory):
    """A module ``zoo_extras`` with a mixer that is not registered, and one that cannot be imported."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "zoo_extras.py").write_text(OWN)
    (folder / "zoo_broken.py").write_text("import nowhere_at_all")
    sys.path.insert(0, str(folder))
    yield importlib.import_module("zoo_extras")
    sys.path.remove(str(folder))


def every_way(name, **options):
    """The mixers that every way to name one builds."""
    vit = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", **vit)
    yield az.create_mixer(name, 12, 2, **options)
    yield az.swap_mixers(model, name, **options).blocks[0].attn
    layer = az.attn_layer(name, **options)
    yield timm.create_model("vit_tiny_patch16_224", attn_layer=layer, **vit).blocks[0].attn
    rvt = {"embed_dims": (12,), "depths": (1,), "num_heads": (2,), "img_size": 32}
    yield timm.create_model("rvt_tiny", mixer=name, mixer_args=options, **rvt).transformers[0].blocks[0].attn
    yield az.Axial(12, 2, mixer=partial(registry.mixer_class(name), **options)).width


def test_a_dotted_path_is_a_name_everywhere(own_package):
    for mixer in every_way("zoo_extras.Gain", gain=2.0):
        assert type(mixer) is own_package.Gain and mixer.gain == 2.0
    assert type(az.Axial(12, 2, mixer="zoo_extras.Gain").width) is own_package.Gain
    assert type(az.create_mixer("Gain", 12, 2)) is own_package.Gain  # imported by now
    assert az.mixer_info("zoo_extras.Gain").options == (registry.Option("gain", "float", 1.0),)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("zoo_extras.function", "zoo_extras.function is no mixer: a mixer is a subclass"),
        ("zoo_extras.CALLED", "is no mixer"),
        ("zoo_extras.az", "is no mixer"),
        ("zoo_extras.Half", "zoo_extras.Half cannot be built: it does not define mix"),
        ("zoo_extras.Gian", "unknown mixer of module zoo_extras 'Gian'; did you mean 'Gain'"),
        ("zoo_broken.Gain", "module zoo_broken cannot be imported: No module named 'nowhere_at_all'"),
        ("zoo_missing.Gain", "module zoo_missing cannot be imported"),
        ("zoo extras.Gain", "no dotted path"),
        (".Gain", "no dotted path"),
        ("os.kill", "os.kill is no mixer"),
        ("torch.nn.Linear", "torch.nn.Linear is no mixer"),
        ("zoo_extras." + "a" * 5000, "unknown mixer of module"),
    ],
)
def test_what_is_at_a_path_is_never_called_unless_it_is_a_mixer(own_package, path, message):
    for way in (az.mixer_info, lambda name: az.create_mixer(name, 12, 2), az.attn_layer, registry.as_factory):
        with pytest.raises(az.InputError, match=message) as caught:
            way(path)
        assert "\n" not in str(caught.value)
    assert own_package.CALLED == []


def test_a_name_of_two_classes_needs_its_path():
    def another():
        class Twice(az.SelfMixer):
            def mix(self, q, k, v):
                return v

        return Twice

    kept = another(), another()
    with pytest.raises(az.InputError, match="'Twice' is the name of several classes: .*; give a dotted path"):
        az.create_mixer("Twice", 12, 2)
    assert len(kept) == 2


def test_host_options_are_the_arguments_of_every_mixer():
    assert list(az.HostOptions.__annotations__) == registry._host_parameters(az.MIXERS["DotProduct"])


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("attention_zoo", {"tasks", "datamodules"}), ("tasks", {"datamodules"}), ("datamodules", {"tasks"})],
)
def test_imports_point_one_way(package, forbidden):
    for file in (ROOT / package).rglob("*.py"):
        if (ROOT / "attention_zoo" / "cli") in file.parents:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not {name.partition(".")[0] for name in names} & forbidden, file


def test_every_mixer_comes_from_its_room_too():
    mixers = importlib.import_module("attention_zoo.mixers")
    assert all(getattr(mixers, name) is cls for name, cls in az.MIXERS.items())
    with pytest.raises(AttributeError, match="no attribute 'VarzD'"):
        mixers.VarzD  # noqa: B018


def test_the_readmes_mixer_is_found_in_the_folder_where_the_readme_puts_it(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (source,) = [block for block in blocks if "class MeanField(az.SelfMixer)" in block]
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "attention_zoo", tmp_path / "attention_zoo", ignore=ignored)
    (tmp_path / "attention_zoo" / "mixers" / "mean_field.py").write_text(source)
    command = [sys.executable, "-m", "attention_zoo", "mixers"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "MeanField" in ended.stdout and "VarsSD" in ended.stdout
