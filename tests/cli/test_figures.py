"""The paper's figures of interactive segmentation, each as one sweep that trains, tests and draws all its curves."""

from pathlib import Path

import pytest
import yaml

from attention_zoo.runs.configs import parts
from attention_zoo.sweeps import Plan

ROOT = Path(__file__).parents[2]
FIGURES = [ROOT / "configs/sweeps/figure1.yaml", *sorted((ROOT / "configs/sweeps/figures").glob("*.yaml"))]


def plan(path):
    """The plan of a config, which may say only in what it differs from another one."""
    content = {}
    for part in parts(str(path)):
        content |= yaml.safe_load(part if "\n" in part else Path(part).read_text())
    return Plan(**{key: value for key, value in content.items() if key != "out"})


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_every_figure_is_tested_on_both_data_sets_with_its_curves(zoo, monkeypatch, path):
    monkeypatch.chdir(ROOT)
    swept = plan(path)
    assert list(swept.evaluations) == ["grabcut", "berkeley"]
    assert swept.configs == [f"configs/interactive/{path.stem}.yaml"]
    run = swept.all_runs()[-1]
    ended = zoo("fit", "--config", ROOT / swept.configs[0], *run.arguments, "--print_config")
    assert ended.code == 0, ended.err
    config = yaml.safe_load(ended.out)["model"]["init_args"]
    tested = swept.evaluations["grabcut"].get("model.settings")
    assert tested == swept.evaluations["berkeley"].get("model.settings")
    if tested is None:
        return
    grid = config["value_prior_precision_search"]
    for setting in config["settings"].values():
        named = {key: setting[key] for key in ("key_adaptation", "value_propagation")}
        same = [one for one in tested.values() if {key: one.get(key) for key in named} == named]
        assert [one.get("value_prior_precision") for one in same] == (grid if named["value_propagation"] else [None])


def test_figure_1_compares_what_differs():
    runs = plan(FIGURES[0]).runs
    kinds = [name.split(", ")[0] for name in runs]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "convolution": 1,
        "standard": 4,
        "uniform prior": 4,
        "learned precisions": 4,
    }
    assert len({str(options) for options in runs.values()}) == len(runs)
