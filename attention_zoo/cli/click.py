"""``python -m attention_zoo click``: a page in the browser on which objects are marked by clicks."""

from importlib.util import find_spec
from typing import Annotated

from attention_zoo.domains import Domain
from attention_zoo.errors import InputError

Port = Annotated[int, Domain(least=0, most=65535)]
"""The number of a port; 0 is any that is free."""


def click(
    *,
    ckpt_path: str,
    images: str | None = None,
    masks: str | None = None,
    host: str = "127.0.0.1",
    port: Port = 8000,
    device: str = "cpu",
    trust_checkpoint: bool = False,
) -> None:
    """Mark objects by clicks, on a page in the browser.

    Open the address that is printed. Left click: object; right click: background; drag: box. The page says what else
    it can do, all of it by keyboard too. It exports PNG masks, COCO JSON, and the clicks.json from which predict makes
    the same masks. The encoder runs once a picture where the model was trained with clicks_in: head; where clicks enter
    the encoder, it runs once a click.

    Args:
        ckpt_path: checkpoint, or folder of a run, of interactive segmentation.
        images: folder of pictures, searched recursively; more can be dropped into the page.
        masks: folder of the true masks of the pictures, of the same names (ID.png, or ID#1.png, ID#2.png and so on; 255
            on the object, 128 counts nowhere): the page then says the IoU after each click.
        host: name or address to listen on; one that other machines can reach needs the token in the printed address.
        port: port to listen on; 0 is any that is free.
        device: where the model runs, e.g. cuda.
        trust_checkpoint: whether the config in the checkpoint may name any class, and run its code.
    """
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise InputError(f"pages need the package {package}: pip install 'attention_zoo[pages]'")
    from attention_zoo.cli.segmenter import RunSegmenter
    from attention_zoo.pages.click import ClickPage
    from attention_zoo.pages.server import serve
    from attention_zoo.terminal import waiting

    with waiting("opening the model and the pictures"):
        segmenter = RunSegmenter(ckpt_path, images, masks, device=device, trust=trust_checkpoint)
    serve(ClickPage(segmenter), host, port)
