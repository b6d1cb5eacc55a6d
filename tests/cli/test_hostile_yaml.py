"""YAML that would blow up, or says a thing twice, is refused wherever the command line reads YAML."""

import pytest
import torch
import yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
HOSTILE = {
    "a bomb": (BOMB, "repeat too much"),
    "a circle": ("a: &a [*a]\n", "stands inside"),
    "a key twice": ("trainer: {max_epochs: 1, max_epochs: 2}\n", "twice"),
    "deep": ("a: " + "[\n" * 1500 + "]" * 1500 + "\n", "nests"),
}


def one_line(ended, *words):
    assert ended.code == 2
    errors = ended.err.splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: "), ended.err[-500:]
    for word in words:
        assert word in errors[0]


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("command", ["fit", "test", "sweep", "report", "maps"])
def test_configs(zoo, tmp_path, command, case):
    text, word = HOSTILE[case]
    (tmp_path / "x.yaml").write_text(text)
    one_line(zoo(command, "--config", "x.yaml"), "x.yaml", word)


@pytest.mark.parametrize("case", HOSTILE)
def test_values_on_the_command_line(zoo, tiny, case):
    text, word = HOSTILE[case]
    flow = text if case != "a key twice" else "{depth: 2, depth: 3}"
    one_line(zoo("fit", "--config", tiny, "--model.model_args", flow), word)


@pytest.mark.parametrize("case", HOSTILE)
def test_the_config_in_a_checkpoint(zoo, run_folder, tmp_path, case):
    content = torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)
    content["config"] = HOSTILE[case][0]
    torch.save(content, tmp_path / "x.ckpt")
    one_line(zoo("test", "--ckpt_path", "x.ckpt"), "x.ckpt", HOSTILE[case][1])


def test_a_file_for_a_part(zoo, tiny, tmp_path):
    (tmp_path / "mixer.yaml").write_text("class_path: VarsD\ninit_args: {steps: 1, steps: 2}\n")
    one_line(zoo("fit", "--config", tiny, "--model.mixer", "./mixer.yaml"), "twice")


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        (name, value, found)
        for name in (
            *("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches"),
            *("overfit_batches", "val_check_interval"),
        )
        for value, found in (("1", 1), ("1.0", 1.0))
    ],
)
@pytest.mark.parametrize("way", ["command line", "config"])
def test_a_count_of_batches_is_no_share(parser, tmp_path, key, value, found, way):
    if way == "config":
        parsed = parser.parse_string(yaml.safe_dump({"trainer": {key: found}}))
    else:
        parsed = parser.parse_args([f"--trainer.{key}", value])
    got = parsed["trainer"][key]
    assert got == found and type(got) is type(found)


@pytest.fixture(scope="session")
def parser():
    from attention_zoo.cli.lightning import parser_of_parts

    return parser_of_parts()


def test_one_batch_is_one_batch(zoo, tiny, tmp_path):
    argv = ["--trainer.limit_train_batches", "1", "--trainer.max_epochs", "1", "--trainer.default_root_dir", "run"]
    assert zoo("fit", "--config", tiny, *argv).code == 0
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 1
