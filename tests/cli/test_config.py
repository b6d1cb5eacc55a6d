"""How configs and arguments make one config."""

import pytest
import torch
import yaml

import tasks

LEAKY = {"class_path": "VarsD", "init_args": {"feature_ratio": 1.0, "steps": 5}}


@pytest.fixture
def resolved(zoo, tiny):
    """The config that a command would run with."""

    def parse(*argv):
        ended = zoo("fit", "--config", tiny, *argv, "--print_config")
        assert ended.code == 0, ended.err
        return yaml.safe_load(ended.out)

    return parse


@pytest.fixture
def vars_d(tmp_path):
    path = tmp_path / "vars_d.yaml"
    path.write_text(yaml.safe_dump({"model": {"init_args": {"mixer": LEAKY}}}))
    return path


def options(config):
    return config["model"]["init_args"]


def test_configs_compose_and_the_command_line_wins(resolved, vars_d):
    config = resolved("--config", vars_d, "--model.mixer.steps", "7", "--trainer.max_epochs", "9")
    assert options(config)["mixer"]["class_path"].endswith("VarsD")
    assert options(config)["mixer"]["init_args"]["steps"] == 7
    assert options(config)["mixer"]["init_args"]["feature_ratio"] == 1.0
    assert options(config)["model_args"]["patch_size"] == 2
    assert config["trainer"]["max_epochs"] == 9
    assert config["trainer"]["limit_train_batches"] == 3


def test_mixers_of_layers(resolved):
    layers = ("--model.layer_mixers.0-1", "VarsD", "--model.layer_mixers.0-1.steps", "9")
    config = resolved("--model.mixer", "Performer", *layers)
    assert options(config)["layer_mixers"]["0-1"]["init_args"]["steps"] == 9
    assert options(config)["mixer"]["class_path"].endswith("Performer")


def test_the_seed_has_a_default(resolved):
    assert resolved()["seed_everything"] == 0


@pytest.mark.parametrize("way", ["argument", "config"])
def test_arguments_of_a_mixer_do_not_leak_into_the_next(resolved, vars_d, tmp_path, way):
    if way == "argument":
        config = resolved("--config", vars_d, "--model.mixer", "Performer")
    else:
        (tmp_path / "next.yaml").write_text("model: {init_args: {mixer: {class_path: Performer}}}")
        config = resolved("--config", vars_d, "--config", tmp_path / "next.yaml")
    fresh = resolved("--model.mixer", "Performer")
    assert options(fresh)["mixer"]["init_args"]["feature_ratio"] != 1.0  # or this test shows nothing
    assert options(config)["mixer"] == options(fresh)["mixer"]


def test_arguments_of_an_optimizer_do_not_leak_into_the_next(resolved):
    config = resolved("--model.optimizer", "AdamW", "--model.optimizer.weight_decay", "0.3", "--model.optimizer", "SGD")
    assert options(config)["optimizer"]["class_path"] == "torch.optim.SGD"
    assert options(config)["optimizer"]["init_args"]["weight_decay"] != 0.3


def test_another_data_class_keeps_what_both_know(resolved):
    config = resolved("--data.batch_size", "5", "--data", "ImageFolder", "--data.root", "x")
    assert config["data"]["init_args"]["batch_size"] == 5


def test_a_saved_config_meets_another_mixer(resolved, run_folder):
    config = resolved("--config", run_folder / "config.yaml", "--model.mixer", "Probabilistic")
    assert options(config)["mixer"] == options(resolved("--model.mixer", "Probabilistic"))["mixer"]


def test_a_saved_config_reads_back_as_itself(zoo, run_folder):
    ended = zoo("fit", "--config", run_folder / "config.yaml", "--print_config")
    assert yaml.safe_load(ended.out) == yaml.safe_load((run_folder / "config.yaml").read_text())


def test_a_saved_config_is_resolved_and_names_no_place(run_folder):
    config = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert options(config)["mixer"]["init_args"]["steps"] == 2
    assert options(config)["mixer"]["init_args"]["feature_ratio"] == 2.0
    assert config["trainer"]["default_root_dir"] is None
    assert not {"num_classes", "image_size"} & set(options(config))


def test_a_config_with_a_base_is_the_two_given_after_each_other(zoo, resolved, tiny, vars_d, tmp_path):
    text = f"base: [{tiny}, vars_d.yaml]\nmodel: {{init_args: {{mixer: {{class_path: Performer}}}}}}"
    (tmp_path / "overlay.yaml").write_text(text)
    ended = zoo("fit", "--config", tmp_path / "overlay.yaml", "--trainer.max_epochs", "9", "--print_config")
    assert ended.code == 0, ended.err
    (tmp_path / "plain.yaml").write_text(text.partition("\n")[2])
    expected = resolved("--config", vars_d, "--config", tmp_path / "plain.yaml", "--trainer.max_epochs", "9")
    assert yaml.safe_load(ended.out) == expected
    assert "base" not in expected


@pytest.mark.parametrize("command", ["fit", "test", "sweep"])
def test_a_base_that_is_not_there_ends_in_one_line(zoo, tmp_path, command):
    (tmp_path / "overlay.yaml").write_text("base: nowhere.yaml\nseed_everything: 1")
    ended = zoo(command, "--config", tmp_path / "overlay.yaml")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "config overlay.yaml: its base" in ended.err and "nowhere.yaml does not exist" in ended.err


class Tool:
    """An object that no config can name."""

    __slots__ = ()


TOOLS, PLACE = [Tool()], torch.device("cpu")


class Own(tasks.Classification):
    """A task of a user's, with objects for defaults."""

    def __init__(
        self,
        model: str,
        num_classes: int,
        tools: list[Tool] = TOOLS,
        where: torch.device | str | None = PLACE,
        **kwargs,
    ):
        super().__init__(model, num_classes, **kwargs)
        assert isinstance(tools[0], Tool) and where == PLACE


def test_a_default_that_has_no_text_is_the_default_again(zoo, tiny, tmp_path):
    run = ["--trainer.default_root_dir", tmp_path / "run"]
    ended = zoo("fit", "--config", tiny, "--model", f"{__name__}.Own", "--trainer.max_epochs", "1", *run)
    assert ended.code == 0, ended.err
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["init_args"]
    assert config["where"] == "cpu" and "tools" not in config
    trust = ["--trust_checkpoint", "true"]
    ended = zoo("fit", "--ckpt_path", tmp_path / "run", "--trainer.max_epochs", "2", *trust)
    assert ended.code == 0, ended.err
