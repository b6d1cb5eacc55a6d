"""The page on which objects are marked by clicks: what it answers. Its files are in ``static/click``."""

import io
import json
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from pycocotools import mask as coco
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from torch import Tensor

from attention_zoo.clicks import ClickedImage
from attention_zoo.errors import InputError, unknown
from attention_zoo.pages.pictures import Picture, Pictures, as_file, mask_file
from attention_zoo.pages.server import json_response, read_body, read_json
from attention_zoo.pages.turns import Turns
from attention_zoo.run_lengths import RunLengths
from attention_zoo.terminal import printable

MOST_UPLOAD = 32 << 20
"""The most bytes of a picture or mask from a tab."""

MOST_CLICKS = 200
"""The most clicks on one object."""

MOST_OBJECTS = 10_000
"""The most objects of an export."""

BEFORE = {"key_adaptation": 0, "value_propagation": 0}
"""The setting that an answer is compared with."""


class Score(NamedTuple):
    """How good a mask is: the IoU with the object of the ground truth that it covers best, and that object's name."""

    iou: float
    name: str


class Segmenter(Protocol):
    """What the page asks of a model; all but ``facts`` and ``files`` is called by one thread at a time.

    Attributes:
        pictures: the pictures that can be opened.
    """

    pictures: Pictures

    def facts(self) -> dict[str, Any]:
        """Return plain values that say what the model can do; any thread may ask.

        ``title`` and ``model`` name it; ``adapts`` has the places where keys can adapt, ``backbone`` and ``head``;
        ``propagates`` says whether values can; ``built`` has the options of adaptation that it was built with;
        ``settings`` are named sets of them, the first being that of ``predict``; ``threshold`` is its threshold;
        ``box`` says whether a box changes anything, ``encoder_once`` whether no click enters the encoder, and ``truth``
        whether there are true masks.
        """

    def mask(self, picture: Picture, annotation: ClickedImage) -> Tensor:
        """Return the mask (H, W) bool of one object."""

    def score(self, picture: Picture, mask: Tensor) -> Score | None:
        """Return how good a mask (H, W) bool is; None without a ground truth."""

    def read_mask(self, picture: Picture, content: bytes) -> Tensor:
        """Return the mask (H, W) bool in the bytes of a file, which is as large as the picture."""

    def files(self, names: Sequence[str]) -> list[Path]:
        """Return for each object, by the names of their pictures, the file that ``predict`` would write its mask to."""


class ClickPage:
    """The page of `python -m attention_zoo click`.

    A tab keeps what its person did, and sends all of it each time: an object as an entry of a file of clicks whose
    ``image`` is the id of a picture. So the server has nothing to lose, and tabs do not mix.

    Args:
        segmenter: the model.
    """

    name = "click"

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter, self.turns = segmenter, Turns()

    def routes(self) -> list[BaseRoute]:
        """Return the routes below ``/api/``."""
        return [
            Route("/api/facts", self.facts),
            Route("/api/pictures", self.upload, methods=["POST"]),
            Route("/api/pictures/{id}", self.picture),
            Route("/api/pictures/{id}/mask", self.start, methods=["POST"]),
            Route("/api/answer", self.answer, methods=["POST"]),
            Route("/api/export/{kind}", self.export, methods=["POST"]),
        ]

    async def facts(self, request: Request) -> Response:
        """Answer with what the model can do, and the pictures of the folder."""
        pictures = [picture.shown for picture in self.segmenter.pictures.listed()]
        limits = {"clicks": MOST_CLICKS, "upload": MOST_UPLOAD}
        return json_response({**self.segmenter.facts(), "pictures": pictures, "limits": limits})

    async def picture(self, request: Request) -> Response:
        """Answer with a picture, as a file that browsers show."""
        content, kind = await self.turns.call(request, self._file, request.path_params["id"])
        return Response(content, media_type=kind)

    async def upload(self, request: Request) -> Response:
        """Take a picture that was dropped into a tab; the query has its ``name``."""
        name = request.query_params.get("name", "")
        content = await _upload(request)
        return json_response((await self.turns.call(request, self.segmenter.pictures.add, name, content)).shown)

    async def start(self, request: Request) -> Response:
        """Answer with the mask in a file, as runs, and the box around it."""
        picture = self.segmenter.pictures.find(request.path_params["id"])
        content = await _upload(request)
        mask = await self.turns.call(request, self.segmenter.read_mask, picture, content)
        if not mask.any():
            raise InputError("this mask is empty: no pixel of it is brighter than grey")
        rows, columns = (mask.any(axis).nonzero()[:, 0] for axis in (1, 0))
        box = [int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])]
        return json_response({"mask": RunLengths.of(mask).plain(), "box": box})

    async def answer(self, request: Request) -> Response:
        """Answer to the clicks on an object; with ``compare`` also how it would be without adaptation."""
        content = await read_json(request)
        compare = content.pop("compare", False) is True
        picture, annotation = self._entry(content)
        settings = {"after": annotation.setting} | ({"before": BEFORE} if compare else {})
        answers = {}
        for name, setting in settings.items():
            asked = replace(annotation, setting=setting)
            answers[name] = await self.turns.call(request, self._answer, picture, asked)
        return json_response(answers)

    async def export(self, request: Request) -> Response:
        """Answer with a file of all objects of a tab: ``masks.zip``, ``coco.json`` or ``clicks.json``."""
        kind = request.path_params["kind"]
        if kind not in EXPORTS:
            raise unknown("export", kind, EXPORTS)
        content = await read_json(request)
        objects = content.get("objects")
        if not isinstance(objects, list) or not 0 < len(objects) <= MOST_OBJECTS:
            raise InputError(f"expected objects, a list of 1 to {MOST_OBJECTS:,}")
        entries = [self._entry(each) for each in objects]
        marked = []
        for picture, annotation in entries:
            with_masks = kind != "clicks.json"
            mask = await self.turns.call(request, self.segmenter.mask, picture, annotation) if with_masks else None
            marked.append(Marked(picture, replace(annotation, image=picture.name), mask))
        written, media_type = EXPORTS[kind](marked, self.segmenter)
        disposition = {"content-disposition": f'attachment; filename="{kind}"'}
        return Response(written, headers=disposition, media_type=media_type)

    def _entry(self, content: Any) -> tuple[Picture, ClickedImage]:
        annotation = ClickedImage.parse(content)
        if len(annotation.clicks) > MOST_CLICKS:
            raise InputError(f"more than {MOST_CLICKS} clicks on one object")
        return self.segmenter.pictures.find(annotation.image), annotation

    def _file(self, id: str) -> tuple[bytes, str]:
        pictures = self.segmenter.pictures
        return as_file(pictures.pixels(pictures.find(id)))

    def _answer(self, picture: Picture, annotation: ClickedImage) -> dict[str, Any]:
        start = time.perf_counter()
        mask = self.segmenter.mask(picture, annotation)
        seconds = time.perf_counter() - start
        score = self.segmenter.score(picture, mask)
        truth = None if score is None else {"iou": score.iou, "name": printable(score.name)}
        return {"mask": RunLengths.of(mask).plain(), "pixels": int(mask.sum()), "seconds": seconds, "truth": truth}


class Marked(NamedTuple):
    """An object of an export.

    Attributes:
        picture: the picture that it is on.
        annotation: its clicks; ``image`` is the name of the picture.
        mask: (H, W) bool; None where the export has no masks.
    """

    picture: Picture
    annotation: ClickedImage
    mask: Tensor | None


async def _upload(request: Request) -> bytes:
    content = await read_body(request, MOST_UPLOAD)
    if not content:
        raise InputError("this file is empty")
    return content


def _masks(marked: Sequence[Marked], segmenter: Segmenter) -> tuple[bytes, str]:
    """Return a zip of PNG masks that are named as those of ``predict`` for the exported clicks."""
    file = io.BytesIO()
    names = segmenter.files([each.annotation.image for each in marked])
    with zipfile.ZipFile(file, "w") as archive:
        for name, each in zip(names, marked, strict=True):
            if each.mask is not None:
                archive.writestr(zipfile.ZipInfo(printable(name.as_posix())), mask_file(each.mask))
    return file.getvalue(), "application/zip"


def _coco(marked: Sequence[Marked], segmenter: Segmenter) -> tuple[bytes, str]:
    """Return the objects as COCO has them, with run lengths and one category, ``object``."""
    images: dict[str, dict[str, Any]] = {}
    annotations = []
    for number, (picture, annotation, mask) in enumerate(marked, 1):
        if mask is None:
            continue
        size = {"height": mask.shape[0], "width": mask.shape[1]}
        fresh = {"id": len(images) + 1, "file_name": printable(annotation.image), **size}
        runs = coco.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        annotations.append(
            {
                "id": number,
                "image_id": images.setdefault(picture.id, fresh)["id"],
                "category_id": 1,
                "segmentation": {"size": list(mask.shape), "counts": runs["counts"].decode()},
                "area": int(coco.area(runs)),
                "bbox": coco.toBbox(runs).tolist(),
                "iscrowd": 0,
            }
        )
    categories = [{"id": 1, "name": "object"}]
    content = {"images": list(images.values()), "annotations": annotations, "categories": categories}
    return json.dumps(content).encode(), "application/json"


def _clicks(marked: Sequence[Marked], segmenter: Segmenter) -> tuple[bytes, str]:
    """Return the file of clicks, an object a line, from which ``predict`` makes the same masks."""
    lines = ",\n".join(json.dumps(each.annotation.plain()) for each in marked)
    return f"[\n{lines}\n]\n".encode(), "application/json"


EXPORTS = {"masks.zip": _masks, "coco.json": _coco, "clicks.json": _clicks}
"""What can be exported, by the name of the file."""
