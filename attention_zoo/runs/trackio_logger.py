"""A logger of Lightning that writes to Trackio, in its local store."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only


class TrackioLogger(Logger):
    """Writes the metrics of a run to Trackio, whose folder the environment variable ``TRACKIO_DIR`` sets.

    A run that goes on adds to the Trackio run of its name.

    Args:
        project: the project that the run belongs to.
        name: the name of the run.
    """

    def __init__(self, project: str = "attention_zoo", name: str | None = None) -> None:
        super().__init__()
        self.project, self.run_name = project, name
        self.run: Any = None
        self.parameters: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """Return the name of the project."""
        return self.project

    @property
    def version(self) -> str | None:
        """Return the name of the run."""
        return self.run_name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Return the run of Trackio, which begins at the first call."""
        if self.run is None:
            import trackio

            self.run = trackio.init(
                self.project,
                name=self.run_name,
                config=self.parameters,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return self.run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Keep hyperparameters for the beginning of the run; Trackio takes none later."""
        self.parameters |= vars(params) if isinstance(params, Namespace) else params

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics at a step."""
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def log_image(self, key: str, images: Sequence[np.ndarray], step: int | None = None) -> None:
        """Log images (H, W, 3) uint8 under a key, at a step; a place is added to the key where there are several."""
        import trackio

        keys = [key] if len(images) == 1 else [f"{key}/{place}" for place in range(len(images))]
        self.experiment.log({name: trackio.Image(image) for name, image in zip(keys, images, strict=True)}, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Finish the run, with all that waits to be written."""
        if self.run is not None:
            import trackio

            trackio.finish()  # not run.finish: as the interpreter ends, Trackio would finish it once more
            self.run = None
