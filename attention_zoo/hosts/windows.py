"""What layers that attend inside windows share."""

from typing import Any

from torch import Tensor, nn

from attention_zoo.hosts.base import HostLayer


class WindowLayer(HostLayer):
    """Base of layers whose tokens are windows (windows * B, N, dim) of a known height and width."""

    sees_grid = True

    @classmethod
    def window(cls, layer: Any) -> tuple[int, int]:
        """Return height and width of the windows."""
        height, width = layer.window_size
        return height, width


class SwinFamilyLayer(WindowLayer):
    """Base of the layers of Swin's kin: windows with biases, which may be given another size."""

    @classmethod
    def adds_bias(cls, layer: Any, model: nn.Module) -> bool:
        """Return True: each pair of places in a window has a bias."""
        return True

    def set_window_size(self: Any, window_size: tuple[int, int]) -> None:
        """Take windows of another size from now on, as timm's layer does, in the mixer too."""
        super().set_window_size(window_size)  # type: ignore[misc]  # of the class of timm beside this one
        self.mixer.set_grid(self.window(self))


def with_mask(bias: Tensor, mask: Tensor | None, batch: int) -> Tensor:
    """Return a bias (1, H, N, N) plus the masks (windows, N, N) of shifted windows, (batch, H, N, N) if there are some.

    The windows of one image follow each other among the ``batch``.
    """
    return bias if mask is None else (bias + mask[:, None]).repeat(batch // mask.shape[0], 1, 1, 1)
