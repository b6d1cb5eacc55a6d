"""The attention page: who reads whom in the layers of several models, row by row.

``/api/facts`` says which models and images there are, ``/api/view`` what a model makes of an image, ``/api/picture``
is the image as the model sees it, and ``/api/values`` the numbers of one picture: a header in JSON, of the length that
the first four bytes say (unsigned, little-endian), then float32. No answer has N x N numbers.
"""

import json
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, get_args

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from torch import Tensor

from attention_zoo.analysis.priors import LEARNED
from attention_zoo.analysis.views import Prior, View
from attention_zoo.domains import shown as short
from attention_zoo.errors import InputError, unknown
from attention_zoo.mixers.protocols import Assignments, Atoms, Steps
from attention_zoo.models.top_down import Mode
from attention_zoo.pages.gallery import KINDS, Asked, Gallery, Given, Shown
from attention_zoo.pages.pictures import as_file
from attention_zoo.pages.server import json_response, read_body
from attention_zoo.pages.turns import Turns

MOST_UPLOAD = 32 << 20
"""Bytes of an image that is dropped on the page."""

MOST_NAME = 80
"""Characters that are kept of its name."""

MOST_ATOMS = 64
"""Atoms that can be asked for."""


class AttentionPage:
    """The page at which attention is looked at.

    Args:
        gallery: the models and images.
        corruptions: names of the corruptions that can be chosen.
        decode: reads an image, uint8 (3, H, W), from its name and the bytes of its file, and refuses what is none or
            too large.
        note: what is to be known of all models, such as that their weights are random.
    """

    name = "look"

    def __init__(
        self, gallery: Gallery, corruptions: Sequence[str], decode: Callable[[str, bytes], Tensor], note: str = ""
    ) -> None:
        self.gallery, self.corruptions, self.decode, self.note = gallery, corruptions, decode, note
        self.turns = Turns()

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of what the page answers."""
        return [
            Route("/api/facts", self.facts),
            Route("/api/view", self.view),
            Route("/api/picture", self.picture),
            Route("/api/values", self.values),
            Route("/api/entropies", self.entropies),
            Route("/api/upload", self.upload, methods=["POST"]),
        ]

    async def facts(self, request: Request) -> Response:
        """Answer with the models, images, corruptions and modes there are."""
        subjects = self.gallery.subjects.items()
        content = {
            "models": [{"name": name, "classes": list(each.class_names or ())} for name, each in subjects],
            "images": list(self.gallery.images),
            "corruptions": list(self.corruptions),
            "modes": list(get_args(Mode)),
            "kinds": list(KINDS),
            "learned": LEARNED,
            "note": self.note,
            "most_bytes": MOST_UPLOAD,
        }
        return json_response(content)

    async def view(self, request: Request) -> Response:
        """Answer with what a model makes of an image: its prediction, layers, heads and grids."""
        query = request.query_params
        model, shown = model_of(query), shown_of(query)
        return json_response(await self.turns.call(request, self._about, model, shown))

    def _about(self, model: int, shown: Shown) -> dict[str, Any]:
        view = self.gallery.view(model, shown)
        prior = view.prior
        return {
            "size": list(view.image.shape[1:]),
            "prediction": view.prediction,
            "layers": layers_of(view),
            "prior": {"word": prior.word, "alpha": prior.alpha, "mode": prior.mode} if prior else None,
        }

    async def picture(self, request: Request) -> Response:
        """Answer with the image as a model sees it."""
        query = request.query_params
        view = await self.turns.call(request, self.gallery.view, model_of(query), shown_of(query))
        content, kind = as_file(view.image.cpu())
        return Response(content, media_type=kind)

    async def values(self, request: Request) -> Response:
        """Answer with the numbers of one kind of picture, see the module's docstring."""
        query = request.query_params
        given = await self.turns.call(request, self.gallery.give, model_of(query), shown_of(query), asked_of(query))
        return Response(packed(given), media_type="application/octet-stream")

    async def entropies(self, request: Request) -> Response:
        """Answer with the entropies of the heads of a layer."""
        query = request.query_params
        arguments = model_of(query), shown_of(query), whole(query, "layer", 0)
        return json_response({"entropies": await self.turns.call(request, self.gallery.entropies, *arguments)})

    async def upload(self, request: Request) -> Response:
        """Keep an image in memory, and answer with the name that it can be asked for by."""
        content = await read_body(request, MOST_UPLOAD)
        name = re.sub(r"[^\w .-]", "_", request.query_params.get("name", ""))[-MOST_NAME:].strip() or "image"
        image = await self.turns.call(request, self.decode, name, content)
        return json_response({"image": self.gallery.add(name, content, image)})


def layers_of(view: View) -> list[dict[str, Any]]:
    """Return what is to be known of each layer of a view, in plain values."""
    found = []
    for seen in view.layers:
        mixer = seen.mixer
        found.append(
            {
                "mixer": type(mixer).__name__,
                "heads": mixer.num_heads,
                "grid": list(seen.grid),
                "prefix": seen.num_prefix_tokens,
                "class_token": seen.has_class_token,
                "steps": mixer.steps if isinstance(mixer, Steps) else 0,
                "atoms": isinstance(mixer, Atoms),
                "clusters": isinstance(mixer, Assignments),
            }
        )
    return found


def packed(given: Given) -> bytes:
    """Return pictures as bytes: the length of the header, the header in JSON, filled up with spaces, and float32."""
    facts = {name: value for name, value in vars(given).items() if name != "values"}
    header = json.dumps({**facts, "count": len(given.values)}).encode()
    header += b" " * (-len(header) % 4)  # so that the numbers are aligned
    return struct.pack("<I", len(header)) + header + given.values.contiguous().numpy().astype("<f4").tobytes()


def model_of(query: QueryParams) -> int:
    """Return the number of the model in a query.

    Raises:
        InputError: it is none.
    """
    return whole(query, "model", 0)


def shown_of(query: QueryParams) -> Shown:
    """Return what models are shown by a query.

    Raises:
        InputError: the image is missing, or a value does not fit.
    """
    if "image" not in query:
        raise InputError("image is missing")
    prior, alpha, mode = query.get("prior"), query.get("alpha"), query.get("mode")
    if mode and mode not in get_args(Mode):
        raise unknown("mode", mode, get_args(Mode))
    steered = prior or alpha or mode
    return Shown(
        query["image"],
        query.get("corruption") or None,
        whole(query, "severity", 3),
        Prior(prior or LEARNED, number("alpha", alpha) if alpha else None, cast(Mode, mode) if mode else None)
        if steered
        else None,
    )


def asked_of(query: QueryParams) -> Asked:
    """Return the picture that a query asks for.

    Raises:
        InputError: a value does not fit.
    """
    count = whole(query, "count", 8)
    if not 1 <= count <= MOST_ATOMS:
        raise InputError(f"count={count}: 1 to {MOST_ATOMS} atoms")
    return Asked(
        kind=query.get("kind", "reads"),
        layer=whole(query, "layer", 0),
        token=query.get("token", "0,0"),
        head=query.get("head", "mean"),
        step=whole(query, "step", 0) if query.get("step") else None,
        count=count,
    )


def whole(query: Mapping[str, str], name: str, default: int) -> int:
    """Return a whole number from 0 in a query.

    Raises:
        InputError: it is none.
    """
    value = query.get(name, str(default))
    if not re.fullmatch(r"\d{1,6}", value, re.ASCII):
        raise InputError(f"{name}={short(value)} must be a whole number from 0")
    return int(value)


def number(name: str, value: str) -> float:
    """Return a finite number.

    Raises:
        InputError: it is none.
    """
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{name}={short(value)} must be a number")
    return found
