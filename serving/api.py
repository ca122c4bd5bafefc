"""The HTTP API: lists, similar items, the catalogue, events, what the shop steers by, and how the process is."""

import asyncio
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

import msgspec
import swagger_ui_bundle
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from litestar import Litestar, MediaType, Request, Response, delete, get, post, put
from litestar.config.cors import CORSConfig
from litestar.connection import ASGIConnection
from litestar.exceptions import (
    HTTPException,
    NotAuthorizedException,
    NotFoundException,
    PermissionDeniedException,
    TooManyRequestsException,
)
from litestar.handlers import BaseRouteHandler
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
    SecurityScheme,
)
from litestar.params import Parameter
from litestar.response import File, Redirect, ServerSentEvent, ServerSentEventMessage
from litestar.static_files import create_static_files_router
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schema.errors import MessageError
from schema.event import EARLIEST_MS, EVENT_TYPES, ITEM_EVENT_TYPES
from schema.item import Item
from schema.recommendation import DEFAULT_USER, default_user
from schema.similar_items import decode_similar_items
from schema.wire import ABSURD_NUMBER
from serving.desk import SegmentCounts, Steered, Table
from serving.event_producer import Accepted, UnavailableError
from serving.lists import Wanted, list_of
from serving.messages import (
    CatalogueItem,
    CatalogueItems,
    Categories,
    Placed,
    Problem,
    SimilarItem,
    SimilarItems,
    State,
    UserList,
)
from serving.service import Service

_PAGE = Path(__file__).parent / "page"
_HEARTBEAT_S, _CATEGORIES = 15.0, 500
_KEY_HEADER = "X-API-Key"
_DESK_LINK = '<a href="desk">Desk</a> · '

Id = Annotated[str, Parameter(min_length=1, max_length=256)]
Count = Annotated[int, Parameter(ge=1, le=1000)]
Price = Annotated[float | None, Parameter(ge=-ABSURD_NUMBER, le=ABSURD_NUMBER)]
_SAID, _SAID_LENGTH = "^[^=]+=.", 1000
Context = Annotated[
    tuple[Annotated[str, msgspec.Meta(pattern=_SAID, max_length=_SAID_LENGTH)], ...],
    Parameter(
        max_items=16,
        # What each must be does not reach the description by itself.
        schema_extra={"items": Schema(type=OpenAPIType.STRING, pattern=_SAID, max_length=_SAID_LENGTH)},
        description="What is known of somebody of whom nothing else is, once for each: `country=DE`. Together they "
        "choose the list for people with no history in that context, where the job makes one (`models.context`).",
    ),
]
IfNoneMatch = Annotated[
    str | None, Parameter(header="If-None-Match", description="The ETag of an answer that is held.")
]

_refused = {
    401: ResponseSpec(Problem, description="The API key is missing or wrong."),
    429: ResponseSpec(Problem, description="More requests than are allowed."),
}
_unchanged = {304: ResponseSpec(None, description="What was asked for is as it is held.")}
_unavailable = {503: ResponseSpec(Problem, description="The broker does not answer.")}
_not_steered = {
    400: ResponseSpec(Problem, description="The message is not valid; `detail` says why."),
    403: ResponseSpec(Problem, description="The configuration does not allow changes over HTTP."),
    413: ResponseSpec(Problem, description="The body is too large."),
}


@get("/users/{user_id:str}/recommendations", responses=_refused | _unchanged, summary="What a person should see")
async def recommendations(
    request: Request[Any, Any, Any],
    user_id: Id,
    k: Count = 20,
    category: Annotated[str | None, Parameter(description="At any depth.")] = None,
    exclude: Annotated[tuple[str, ...], Parameter(description="Item ids.", max_items=1000)] = (),
    min_price: Price = None,
    max_price: Price = None,
    details: Annotated[bool, Parameter(description="With titles, prices and images of the catalogue.")] = False,
    fill: Annotated[
        bool,
        Parameter(
            description="Where fewer than k are left, fill up from the list for people with no history, which knows "
            "nothing of what this person has bought or disliked."
        ),
    ] = False,
    context: Context = (),
    if_none_match: IfNoneMatch = None,
) -> Response[UserList]:
    """The newest list, best first; `strategy` says whether it is their own. Unavailable items are left out, so it may
    hold fewer than k."""
    service: Service = request.app.state.service
    wanted = Wanted(k, category, frozenset(exclude), min_price, max_price, details, fill, _named(context))
    return _tagged(list_of(service.view, user_id, service.key(user_id), wanted), if_none_match)


@get("/users/{user_id:str}/stream", responses=_refused, summary="A person's lists as they come")
async def stream(request: Request[Any, Any, Any], user_id: Id, k: Count = 20, context: Context = ()) -> ServerSentEvent:
    """Server-sent events named `list`: the list that is held, with details, and each one that takes its place."""
    service: Service = request.app.state.service
    key, wanted = service.key(user_id), Wanted(k, details=True, context=_named(context))

    async def lists() -> AsyncIterator[ServerSentEventMessage]:
        sent = None
        # The default list is theirs for as long as they have none.
        with service.live.waiting_for(key, DEFAULT_USER, default_user(wanted.context)) as changed:
            while True:
                changed.clear()
                held = list_of(service.view, user_id, key, wanted)
                if held.list_id is None or held.list_id != sent:
                    yield ServerSentEventMessage(data=msgspec.json.encode(held).decode(), event="list")
                sent = held.list_id
                while not await _within(changed, _HEARTBEAT_S):
                    yield ServerSentEventMessage(data=None, comment="still here")

    return ServerSentEvent(lists())


def _named(context: tuple[str, ...]) -> dict[str, str]:
    return dict(told.split("=", 1) for told in context)


@get("/items/{item_id:str}/similar", responses=_refused | _unchanged, summary="What goes with an item")
async def similar(
    request: Request[Any, Any, Any], item_id: Id, k: Count = 20, if_none_match: IfNoneMatch = None
) -> Response[SimilarItems]:
    """What people have together with the item, best first; empty where nothing is known of it."""
    view = (service := request.app.state.service).view
    raw = service.view.similar(item_id)
    if raw is None:
        return _tagged(SimilarItems(item_id, None, []), if_none_match)
    held = decode_similar_items(raw)
    items = [SimilarItem(item.item_id, item.score) for item in held.items if item.item_id not in view.gone]
    return _tagged(SimilarItems(item_id, held.generated_at, items[:k]), if_none_match)


@get("/items/{item_id:str}", responses=_refused | {404: ResponseSpec(Problem, description="No such item.")})
async def item(request: Request[Any, Any, Any], item_id: Id) -> CatalogueItem:
    """An item of the catalogue."""
    found = request.app.state.service.view.item(item_id)
    if found is None:
        raise NotFoundException(f"The catalogue holds no item {item_id!r}.")
    return _described(found)


@get("/items", responses=_refused, summary="Items of the catalogue")
async def items(
    request: Request[Any, Any, Any],
    q: Annotated[
        str, Parameter(description="Words of title and brand; the last may be a beginning.", max_length=256)
    ] = "",
    category: Annotated[str | None, Parameter(description="The broadest.")] = None,
    limit: Annotated[int, Parameter(ge=1, le=200)] = 50,
) -> CatalogueItems:
    """Those that hold all words and are in the category."""
    view = request.app.state.service.view
    # In a thread: it may look at thousands of items.
    found = view.of_catalogue(await asyncio.to_thread(view.search, q, category, limit))
    return CatalogueItems([_described(item) for item in found if item is not None])


@get("/categories", responses=_refused)
async def categories(request: Request[Any, Any, Any]) -> Categories:
    """The broadest categories of the catalogue."""
    return Categories(request.app.state.service.view.categories(_CATEGORIES))


@dataclass
class _EventOperation(Operation):
    """Describes the body of POST /events, which is read as the job reads it and not by the framework."""

    def __post_init__(self) -> None:
        event = Schema(
            title="Event",
            type=OpenAPIType.OBJECT,
            description="One thing a person did. Unknown fields are kept.",
            required=["user_id", "event_type"],
            properties={
                "event_id": _id(description="Unique; one is made up where it is missing."),
                "user_id": _id(),
                "event_type": Schema(type=OpenAPIType.STRING, enum=list(EVENT_TYPES)),
                "timestamp": Schema(
                    type=OpenAPIType.INTEGER,
                    minimum=EARLIEST_MS,
                    description="Epoch milliseconds, at most a day ahead of the server's; now where it is missing.",
                ),
                "item_id": _id(OpenAPIType.NULL),
                "value": _or_null(OpenAPIType.NUMBER, minimum=-ABSURD_NUMBER, maximum=ABSURD_NUMBER),
                "quantity": _or_null(OpenAPIType.NUMBER, minimum=0, maximum=ABSURD_NUMBER),
                "price": _or_null(OpenAPIType.NUMBER, minimum=0, maximum=ABSURD_NUMBER),
                "currency": _or_null(OpenAPIType.STRING),
                "query": _or_null(OpenAPIType.STRING),
                "session_id": _id(OpenAPIType.NULL, min_length=0),
                "list_id": _id(OpenAPIType.NULL, min_length=0, description="The list that led here."),
                "properties": _or_null(OpenAPIType.OBJECT),
                "consent": Schema(type=OpenAPIType.BOOLEAN, description="False: for this session only."),
            },
            all_of=[
                Schema(properties={"user_id": Schema(schema_not=Schema(pattern=rf"^{DEFAULT_USER}(\?|$)"))}),
                _required_by(sorted(ITEM_EVENT_TYPES), "item_id", OpenAPIType.STRING),
                _required_by(["rating"], "value", OpenAPIType.NUMBER),
            ],
        )
        self.request_body = RequestBody(content={"application/json": OpenAPIMediaType(schema=event)}, required=True)


def _id(*null: OpenAPIType, min_length: int = 1, description: str | None = None) -> Schema:
    kinds = [OpenAPIType.STRING, *null]
    return Schema(type=kinds, min_length=min_length, max_length=256, description=description)


def _or_null(kind: OpenAPIType, **more: Any) -> Schema:
    return Schema(type=[kind, OpenAPIType.NULL], **more)


def _required_by(types: list[str], field: str, *kinds: OpenAPIType) -> Schema:
    return Schema(
        schema_if=Schema(required=["event_type"], properties={"event_type": Schema(enum=types)}),
        then=Schema(required=[field], properties={field: Schema(type=list(kinds))}),
    )


@post(
    "/events",
    operation_class=_EventOperation,
    status_code=202,
    responses=_refused
    | _unavailable
    | {
        400: ResponseSpec(Problem, description="The event is not valid; `extra` says why."),
        413: ResponseSpec(Problem, description="The body is too large."),
    },
    summary="Take an event",
)
async def put_event(request: Request[Any, Any, Any]) -> Accepted:
    """Validate an event as the job will, put it on the topic, and answer when the broker has it."""
    service: Service = request.app.state.service
    try:
        return await service.events.put(await request.body())
    except MessageError as error:
        extra = {"code": error.code, "field": error.field or ""}
        raise HTTPException(status_code=400, detail=str(error), extra=extra) from error
    except UnavailableError as error:
        raise HTTPException(status_code=503, detail=str(error)) from error


@get("/desk/{table:str}", responses=_refused, summary="What the shop steers by, and what comes of it")
async def desk_table(
    request: Request[Any, Any, Any], table: Table, limit: Annotated[int, Parameter(ge=1, le=10_000)] = 500
) -> Response[list[dict[str, Any]]]:
    """The newest message of each key, as it is on the topic; of trends those of the newest hour, of funnels those of
    the newest day."""
    # In a thread: a review queue may be as long as the catalogue.
    held = await asyncio.to_thread(request.app.state.service.desk.table, table, limit)
    return Response(held, media_type=MediaType.JSON)


@get("/desk/all", responses=_refused, summary="All tables of the desk at once")
async def desk_tables(
    request: Request[Any, Any, Any], limit: Annotated[int, Parameter(ge=1, le=10_000)] = 500
) -> Response[dict[str, Any]]:
    """Each table as by itself, at most `limit` of each, and how many people are of each segment."""
    held = await asyncio.to_thread(request.app.state.service.desk.all, limit)
    return Response(held, media_type=MediaType.JSON)


@get("/desk/segments", responses=_refused, summary="How many people are of each segment")
async def desk_segments(request: Request[Any, Any, Any]) -> SegmentCounts:
    """As the job of behaviour tells people apart."""
    return request.app.state.service.desk.segments()


@dataclass
class _MessageOperation(Operation):
    """Describes the body of PUT /desk, which is read as the jobs read it and not by the framework."""

    def __post_init__(self) -> None:
        message = Schema(type=OpenAPIType.OBJECT, description="A rule, a decision or an experiment, as on its topic.")
        self.request_body = RequestBody(content={"application/json": OpenAPIMediaType(schema=message)}, required=True)


@put(
    "/desk/{table:str}/{key:str}",
    operation_class=_MessageOperation,
    status_code=202,
    responses=_refused | _unavailable | _not_steered,
    summary="Steer",
)
async def steer(request: Request[Any, Any, Any], table: Steered, key: Id) -> Placed:
    """Validate a rule, a decision, an experiment or a campaign as the jobs will, put it on its topic, and answer when
    the broker has it."""
    return await _steered(request.app.state.service, table, key, await request.body())


@delete(
    "/desk/{table:str}/{key:str}",
    status_code=202,
    responses=_refused | _unavailable | _not_steered,
    summary="Take back",
)
async def take_back(request: Request[Any, Any, Any], table: Steered, key: Id) -> Placed:
    """Take a rule, a decision, an experiment or a campaign back."""
    return await _steered(request.app.state.service, table, key, None)


async def _steered(service: Service, table: Steered, key: str, raw: bytes | None) -> Placed:
    if not service.settings.steering:
        raise PermissionDeniedException("The configuration does not allow changes over HTTP: serving.steering.")
    try:
        if raw is not None and raw.strip() in (b"", b"null"):
            raise MessageError("missing_field", "message", "nothing", "is to be taken back by DELETE")
        placed = await service.events.send(service.desk.message(table, key, raw), key, raw)
    except MessageError as error:
        extra = {"code": error.code, "field": error.field or ""}
        raise HTTPException(status_code=400, detail=str(error), extra=extra) from error
    except UnavailableError as error:
        raise HTTPException(status_code=503, detail=str(error)) from error
    return Placed(placed.partition, placed.offset)


@get("/pulse/stream", responses=_refused, summary="The pulse, each second")
async def pulse(request: Request[Any, Any, Any]) -> ServerSentEvent:
    """Server-sent events named `beat`: those of the last five minutes, then each new one."""
    service: Service = request.app.state.service

    async def beats() -> AsyncIterator[ServerSentEventMessage]:
        for beat in list(service.beats):
            yield ServerSentEventMessage(data=msgspec.json.encode(beat).decode(), event="beat")
        while True:
            if await _within(service.beaten, _HEARTBEAT_S):
                yield ServerSentEventMessage(data=msgspec.json.encode(service.beats[-1]).decode(), event="beat")
            else:
                yield ServerSentEventMessage(data=None, comment="still here")

    return ServerSentEvent(beats())


@get("/healthz", responses={503: ResponseSpec(State, description="The topics are no longer followed.")})
async def healthz(request: Request[Any, Any, Any]) -> Response[State]:
    """Whether the process works: its view is followed, or waits for a broker that is away."""
    return _state(request.app.state.service, request.app.state.service.follower.failure is None)


@get("/readyz", responses={503: ResponseSpec(State, description="Still reading the topics.")})
async def readyz(request: Request[Any, Any, Any]) -> Response[State]:
    """Whether the view holds all that was on the topics at the start. It stays so while the broker is away: what is
    held is served."""
    follower = request.app.state.service.follower
    return _state(request.app.state.service, follower.failure is None and follower.behind == 0)


@get("/metrics", media_type=MediaType.TEXT, include_in_schema=False)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """For Prometheus."""
    # Beside the loop: what the desk holds of behaviour is read for it.
    page = await asyncio.to_thread(generate_latest, request.app.state.service.registry)
    return Response(page, media_type=CONTENT_TYPE_LATEST)


@get("/", include_in_schema=False, media_type=MediaType.HTML)
async def page(request: Request[Any, Any, Any]) -> str:
    """The page to look at, with a way to the desk where there is one."""
    text = (_PAGE / "index.html").read_text(encoding="utf-8")
    return text if request.app.state.service.settings.desk else text.replace(_DESK_LINK, "")


@get("/desk", include_in_schema=False, media_type=MediaType.HTML)
async def desk_page(request: Request[Any, Any, Any]) -> File | Redirect:
    """The page to steer from."""
    if request.scope["raw_path"].endswith(b"/"):
        # What the page names is beside it, wherever all of it is mounted. The path itself has lost its last slash.
        return Redirect("../desk")
    return File(_PAGE / "desk.html", content_disposition_type="inline", media_type="text/html")


def create_app(service: Service) -> Litestar:
    """The application; it follows the topics while it runs."""
    settings = service.settings
    guarded = [
        handler for handler in (_rate_guard(settings.requests_per_second), _key_guard(settings.key())) if handler
    ]
    described = OpenAPIConfig(
        title="Headrace",
        version="0.1.0",
        description="Lists that follow each click. Ids with a slash in them cannot be asked for.",
        path="/docs",
        use_handler_docstrings=True,
        components=Components(
            security_schemes={
                "key": SecurityScheme(type="apiKey", name=_KEY_HEADER, security_scheme_in="header"),
            }
        ),
        security=[{"key": []}] if settings.key() else None,
        render_plugins=[
            SwaggerRenderPlugin(
                js_url="/docs/assets/swagger-ui-bundle.js",
                css_url="/docs/assets/swagger-ui.css",
                standalone_preset_js_url="/docs/assets/swagger-ui-standalone-preset.js",
                path="/",
            ),
            JsonRenderPlugin(),
        ],
    )
    open_to_all = [healthz, readyz, metrics]
    assets = [create_static_files_router("/docs/assets", [swagger_ui_bundle.swagger_ui_path], include_in_schema=False)]
    if settings.page:
        assets.append(create_static_files_router("/page", [_PAGE], include_in_schema=False))
        open_to_all += [page, desk_page] if settings.desk else [page]
    asked = [recommendations, stream, similar, item, items, categories, put_event, pulse]
    asked += [desk_table, desk_tables, desk_segments, steer, take_back] if settings.desk else []
    for handler in asked:
        handler.guards = guarded
    app = Litestar(
        [*asked, *open_to_all, *assets],
        openapi_config=described,
        cors_config=CORSConfig(allow_origins=settings.allow_origins) if settings.allow_origins else None,
        request_max_body_size=settings.max_body_bytes,
        lifespan=[lambda _: service.running()],
        middleware=[service.metrics.middleware],
        logging_config=None,
    )
    app.state.service = service
    return app


def _tagged(answer: Any, held: str | None) -> Response[Any]:
    """The answer as JSON with its ETag, or 304 where that is the one held."""
    body = msgspec.json.encode(answer)
    tag = f'"{blake2b(body, digest_size=8).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if held is not None and (
        held.strip() == "*" or tag in (part.strip().removeprefix("W/") for part in held.split(","))
    ):
        return Response(None, status_code=304, headers=headers)
    return Response(body, media_type=MediaType.JSON, headers=headers)


def _described(item: Item) -> CatalogueItem:
    return CatalogueItem(
        item.item_id,
        item.title,
        item.category,
        item.brand,
        item.price,
        item.currency,
        item.available,
        item.image_url,
    )


def _state(service: Service, well: bool) -> Response[State]:
    view = service.view
    state = State("ok" if well else "unavailable", view.users, view.items, service.follower.behind)
    return Response(state, status_code=200 if well else 503)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event is set within the time."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _key_guard(key: str | None) -> Any:
    if key is None:
        return None
    expected = key.encode()

    def has_key(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        if not hmac.compare_digest(connection.headers.get(_KEY_HEADER, "").encode(), expected):
            raise NotAuthorizedException(f"The header {_KEY_HEADER} is missing or wrong.")

    return has_key


def _rate_guard(per_second: int) -> Any:
    if not per_second:
        return None
    limiter, limit = SlidingWindowCounterRateLimiter(MemoryStorage()), RateLimitItemPerSecond(per_second)

    def within_rate(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        client = connection.client.host if connection.client else ""
        if not limiter.hit(limit, client):
            raise TooManyRequestsException(
                f"More than {per_second} requests within a second.", headers={"Retry-After": "1"}
            )

    return within_rate
