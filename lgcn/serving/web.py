"""A local page and a JSON API for a trained model: ``lgcn serve``.

    GET  /                                   the page
    GET  /api/model                          what the model is and knows
    GET  /api/items?query=toy                items by title or id, the most rated first
    GET  /api/items/{item}/similar
    GET  /api/users?query=4                  users by id
    GET  /api/users/{user}/ratings           what a user has rated
    GET  /api/users/{user}/recommendations
    POST /api/recommendations                for somebody new, from their ratings
    GET  /openapi.json                       all of this in detail

Everything is answered from memory. An error is a JSON object with one text, ``error``, which says nothing about this
machine.
"""

import asyncio
import ipaddress
import json
import logging
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch

from lgcn import __version__
from lgcn.errors import InputError
from lgcn.graph.scale import as_written
from lgcn.serving.filters import LONGEST, example
from lgcn.serving.recommender import MIN_RATINGS, Exclude, Explanation, Id, Recommender

try:
    import uvicorn
    from anyio import CapacityLimiter, to_thread
    from fastapi import FastAPI, HTTPException, Query, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse, JSONResponse
    from pydantic import BaseModel, ConfigDict, Field
    from starlette.exceptions import HTTPException as StarletteHTTPException
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise InputError(
        f"lgcn serve needs FastAPI and uvicorn ({error}); make serve, or pip install 'lgcn[serve]'"
    ) from error

log = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page.html")
LARGEST_BODY = 1 << 20  # bytes
BODY_SECONDS = 10.0  # for all of it
MOST = 1000  # items or ratings in one answer or question
MOST_REASONS = 20  # for each item
#: Items and reasons of an answer, or 50,000 items to look at, or a million times that a letter of a condition is held
#: against an item, from where on an answer is made in a thread.
HEAVY = 1000
LOCAL_HOST = r"(localhost|127(\.\d{1,3}){1,3}|\[::1\])(:\d+)?"  # as a browser writes it
# The page holds all it needs. It loads nothing from elsewhere, and no other page may show it in a frame.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

SENT = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
T = TypeVar("T")

Count = Annotated[int, Query(ge=1, le=MOST)]
Reasons = Annotated[int, Query(ge=0, le=MOST_REASONS)]
Least = Annotated[int, Query(ge=0)]
Unlike = Annotated[float, Query(ge=0, le=1)]  # of lgcn.serving.diversity
Words = Annotated[str, Query(max_length=200)]
Ids = Annotated[list[str], Query(max_length=MOST)]
Condition = Annotated[str | None, Query(max_length=LONGEST)]  # of lgcn.serving.filters


class Rating(BaseModel):
    """One of a new user's ratings."""

    item: Id
    rating: Annotated[float, Field(allow_inf_nan=False)] = 1.0


class Question(BaseModel):
    """What somebody new has rated."""

    ratings: Annotated[list[Rating], Field(min_length=1, max_length=MOST)]
    k: Annotated[int, Field(ge=1, le=MOST)] = 10
    because: Annotated[int, Field(ge=0, le=MOST_REASONS)] = 0
    min_ratings: Annotated[int, Field(ge=0)] = MIN_RATINGS
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    where: Annotated[str | None, Field(max_length=LONGEST)] = None
    allow: Annotated[list[Id] | None, Field(max_length=MOST)] = None
    block: Annotated[list[Id], Field(max_length=MOST)] = []


class Recommended(BaseModel):
    """One item. What is known of it stands beside: title, genres, or other columns of the data.

    Where the model knows its errors, the rating has the standard deviation ``sd``, and 90 % of such ratings lie between
    ``low`` and ``high``.
    """

    model_config = ConfigDict(extra="allow")

    item: Id
    score: float
    rating: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    because: Explanation | None = None


class Failure(BaseModel):
    """Why there is no answer."""

    error: str


class Recommendations(BaseModel):
    """The best first. ``unknown``: items of the question that are not in the data."""

    user: Id | None = None
    recommendations: list[Recommended]
    unknown: list[Id] = []


def application(recommender: Recommender, local: bool = True) -> FastAPI:
    """The web application around a model.

    Args:
        recommender: the model.
        local: answer only requests that ask for this machine by its local names. A page from elsewhere that reaches
            it by a name of its own, which points here, gets no answer then.
    """
    about: Any = {"title": "lgcn", "version": __version__, "description": "Recommendations of a trained LightGCN."}
    # The pages at docs_url and redoc_url would load scripts from elsewhere.
    reasons = {
        400: "It cannot be answered, or is for another host.",
        404: "There is no such user, item or page.",
        405: "The method is another one; Allow names it.",
        408: f"The request did not come within {BODY_SECONDS:g} seconds.",
        413: f"The request has more than {LARGEST_BODY:,} bytes.",
        422: "A value is not of the kind that is described here.",
    }
    refusals: Any = {status: {"model": Failure, "description": text} for status, text in reasons.items()}
    about |= {"docs_url": None, "redoc_url": None, "redirect_slashes": False}
    app = FastAPI(**about, default_response_class=Json, responses=refusals)
    app.add_middleware(Guard, local=local)
    for kind in (StarletteHTTPException, RequestValidationError, InputError, Exception):
        app.add_exception_handler(kind, failed)
    api = Api(recommender)
    app.get("/", response_class=HTMLResponse, include_in_schema=False)(api.show)
    app.get("/api/model")(api.model)
    app.get("/api/items")(api.find_items)
    app.get("/api/items/{item:path}/similar")(api.similar)
    app.get("/api/users")(api.find_users)
    app.get("/api/users/{user:path}/ratings")(api.ratings)
    app.get("/api/users/{user:path}/recommendations", response_model=Recommendations)(api.recommend)
    app.post("/api/recommendations", response_model=Recommendations)(api.recommend_new)
    return app


class Api:
    """The answers. They are short, and one thread makes them: to change threads for each would take longer.

    Two other threads make those that take long, so that nobody else waits for them.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender, self.snapshot = recommender, recommender.snapshot
        train = self.snapshot.train
        self.degree = train.item_degree.tolist()
        self.by_degree = train.item_degree.argsort(descending=True, stable=True).tolist()
        self.lowered = [recommender.title(place).lower() for place in range(train.num_items)]
        self.heavy = CapacityLimiter(2)
        self.page = PAGE.read_text(encoding="utf-8")
        values = [*map(as_written, train.rating.unique().tolist())]  # type: ignore[no-untyped-call]  # torch's
        self.about = {
            "ranks": recommender.ranks,
            "implicit": self.snapshot.implicit,
            "kind": self.snapshot.kind,
            "users": train.num_users,
            "items": train.num_items,
            "ratings": len(train),
            "min_ratings": MIN_RATINGS,
            "most_ratings": max(self.degree),
            "has_cosines": recommender.model.known.factors.item.shape[1] > 0,
            "known": [*self.snapshot.item_attributes.columns],
            "example": example(self.snapshot.item_attributes.columns),
            "scale": recommender.scale,
            "values": values if len(values) <= 20 else None,
            "own_embeddings": recommender.model.has_own_embeddings,
        }
        with suppress(InputError):  # the first new user would wait longer than the others
            list(recommender.new_users({recommender.item_ids[self.by_degree[0]]: recommender.scale[1]}))

    async def show(self) -> HTMLResponse:
        """The page."""
        return HTMLResponse(self.page)

    async def model(self) -> dict[str, Any]:
        """What the model is and knows. ``values``: the ratings there are, if they are few."""
        return self.about

    async def find_items(self, query: Words = "", limit: Count = 20) -> list[dict[str, Any]]:
        """Items whose title has all words of the query, or whose id it is; the most rated first."""
        words = query.lower().split()
        exact = int(self.snapshot.items.encode([query])[0])
        named = (
            place for place in self.by_degree if place != exact and all(word in self.lowered[place] for word in words)
        )
        found = islice(chain([exact] if exact >= 0 else [], named), limit)
        return await self._made(
            lambda: [self._described(place) | {"ratings": self.degree[place]} for place in found],
            len(self.degree) // 50,
        )

    async def similar(self, item: str, k: Count = 10) -> list[dict[str, Any]]:
        """The nearest items."""
        place = self._place("item", item)
        if not self.recommender.model.graph.item_degree[place]:
            raise HTTPException(
                404, f"item {item[:100]!r} has no training {self.recommender.word}s: nothing is known to be like it"
            )
        table = self.recommender.similar([self.recommender.item_ids[place]], min(k, len(self.degree)))
        found: Any = table.drop(columns=["item", "rank"]).rename(columns={"similar": "item"}).astype(object)
        return found.where(found.notna(), None).to_dict("records")  # type: ignore[no-any-return]

    async def find_users(self, query: Words = "", limit: Count = 20) -> list[Id]:
        """Users whose id begins with the query."""
        found = islice((user for user in self.recommender.user_ids if str(user).startswith(query)), limit)
        return await self._made(lambda: list(found), len(self.recommender.user_ids) // 50)

    async def ratings(self, user: str, limit: Count = 100) -> list[dict[str, Any]]:
        """What a user has rated in the training part, the highest first."""
        rated = self.recommender.rated(self._place("user", user), limit)
        return [self._described(place) | {"rating": rating} for place, rating in rated]

    async def recommend(
        self,
        user: str,
        k: Count = 10,
        because: Reasons = 0,
        min_ratings: Least = MIN_RATINGS,
        diversity: Unlike = 0.0,
        exclude: Exclude = "rated",
        where: Condition = None,
        allow: Ids = [],  # noqa: B006  # never changed
        block: Ids = [],  # noqa: B006
    ) -> "Json":
        """The best items for a user of the data, of all items or of those that are allowed."""
        raw = self.recommender.user_ids[self._place("user", user)]
        how: Any = {"exclude": exclude, "min_ratings": min_ratings, "where": where}
        how |= {"diversity": diversity, "because": because, "allow": allow or None, "block": block}
        return await self._answer(how, min(k, len(self.degree)), users=[raw], more={"user": raw})

    async def recommend_new(self, asked: Question) -> "Json":
        """The best items for somebody new."""
        given = {one.item: one.rating for one in asked.ratings}
        place = self.snapshot.items.encode(given if all(isinstance(item, int) for item in given) else map(str, given))
        items = self.recommender.item_ids
        known = {items[at]: rating for at, rating in zip(place, given.values(), strict=True) if at >= 0}
        if not known:
            raise HTTPException(404, "none of the items is in the data")
        how = asked.model_dump(exclude={"ratings", "k"})
        unknown = [item for item, at in zip(given, place, strict=True) if at < 0]
        more = {"unknown": unknown} if unknown else {}
        return await self._answer(how, min(asked.k, len(items)), ratings=known, more=more)

    async def _answer(self, how: dict[str, Any], k: int, more: dict[str, Any], **who: Any) -> "Json":
        def answer() -> Json:
            ((_, ones),) = self.recommender.each(k=k, **who, **how)
            # It is sent as it is: to check it against its description would take longer than to make it.
            return Json({"recommendations": [self.recommender.record(one) for one in ones]} | more)

        condition = len(how["where"] or "") * len(self.degree) // 1000
        return await self._made(answer, condition + k * (1 + how["because"] + 20 * (how["diversity"] > 0)))

    async def _made(self, make: Callable[[], T], size: int) -> T:
        """An answer, made here, or if it is a large one in another thread."""
        return make() if size < HEAVY else await to_thread.run_sync(make, limiter=self.heavy)

    def _described(self, place: int) -> dict[str, Any]:
        item, known = self.recommender.item(place)
        return {"item": item, **known}

    def _place(self, what: Literal["user", "item"], raw: str) -> int:
        ids = self.snapshot.users if what == "user" else self.snapshot.items
        place = int(ids.encode([raw])[0])
        if place < 0:
            raise HTTPException(404, f"there is no {what} {raw[:100]!r} in the data")
        return place


class Json(JSONResponse):
    """JSON with letters beyond ASCII escaped: a question may hold half a surrogate pair, which UTF-8 cannot write."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Json:
    return Json({"error": message}, status, {**HEADERS, **(headers or {})})


async def failed(request: Request, error: Any) -> Json:
    """The answer to a request that fails."""
    match error:
        case StarletteHTTPException():
            return _error(error.status_code, str(error.detail), error.headers)
        case RequestValidationError():  # what is wrong and where; not what was sent, which may be long
            found = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5]]
            return _error(422, "; ".join(found))
        case InputError():
            return _error(400, str(error))
    return _error(500, "something went wrong here")


class Guard:
    """Refuse a request for another host, one of more than LARGEST_BODY bytes before it is read whole, and a slow one.

    Every answer has the HEADERS.
    """

    def __init__(self, app: ASGIApp, local: bool) -> None:
        self.app, self.local = app, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self.local and re.fullmatch(LOCAL_HOST, host) is None:
            await _error(400, "the request is for another host")(scope, receive, send)
            return
        length, size = headers.get(b"content-length", b"0"), 0
        too_long, chunks = not length.isdigit() or int(length) > LARGEST_BODY, list[Message]()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while not too_long and (
                    not chunks or chunks[-1].get("more_body")
                ):  # a body without a length is counted
                    chunks.append(await receive())
                    size += len(chunks[-1].get("body", b""))
                    too_long = size > LARGEST_BODY
        except TimeoutError:
            late = f"the request did not come within {BODY_SECONDS:g} seconds"
            await _error(408, late, {"Connection": "close"})(scope, receive, send)
            return
        if too_long:
            await _error(413, f"the request has more than {LARGEST_BODY:,} bytes")(scope, receive, send)
            return

        async def replay() -> Message:
            return chunks.pop(0) if chunks else await receive()

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(one for one in SENT if one[0] not in there)]
            await send(message)

        await self.app(scope, replay, send_on)


def serve_at(recommender: Recommender, host: str, port: int) -> None:
    """Serve until interrupted.

    Raises:
        InputError: the address cannot be listened at.
    """
    if not host:
        raise InputError("--host must be an address, such as 127.0.0.1 (this machine only) or 0.0.0.0 (all of them)")
    torch.set_num_threads(1)  # a request is too small to be shared between cores
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small packets at once (TCP_NODELAY) only if the socket names TCP.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen()  # who connects when the line below is there waits, and is not refused
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"--host {host} --port {port} cannot be listened at: {reason}; try another") from error
        address = listening.getsockname()
        local = ipaddress.ip_address(address[0]).is_loopback
        app = application(recommender, local)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        url = f"http://{f'[{address[0]}]' if ':' in host else address[0]}:{address[1]}"
        log.info("serving at %s (Ctrl-C ends it)", url)
        if not local:
            log.warning("%s can be reached from other machines; there is no password", url)
        server.run(sockets=[listening])
