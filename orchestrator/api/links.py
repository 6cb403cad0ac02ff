"""Links that open one port of a runtime, or one path of its workspace, without any key."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api import conversations, runtimes
from orchestrator.api.answers import contents, operations
from orchestrator.api.answers.declared import says
from orchestrator.api.auth import OwnerOf, ServicesOf
from orchestrator.api.json_values import NO_TRUTH
from orchestrator.api.lists import MOST, OLDEST_FIRST, IdsOf, Limit, SortOrder, uuids, whole
from orchestrator.api.paging import Paging, PagingOf
from orchestrator.domain.clock import rfc3339
from orchestrator.domain.ids import parse_uuid
from orchestrator.domain.links import Link, LinkId
from orchestrator.services.links import LONGEST_SECONDS, Opening

router = APIRouter(prefix="/api/v2", tags=["links"])


class LinkBody(BaseModel):
    """One of `port` and `path`. `expires_in` in seconds, up to 30 days."""

    model_config = ConfigDict(extra="forbid")

    port: Annotated[int, Field(ge=1, le=65535), NO_TRUTH] | None = None
    path: Annotated[str, Field(max_length=4095)] | None = None
    expires_in: Annotated[int, Field(ge=1, le=LONGEST_SECONDS), NO_TRUTH] = 3600

    def opening(self) -> Opening:
        return Opening(self.port, self.path, self.expires_in)


@router.post("/conversations/{conversation}/links", status_code=201, responses=says({201: contents.NewLink}))
async def make(body: LinkBody, conversation: str, owner: OwnerOf, services: ServicesOf, response: Response) -> Any:
    """A new link. Its `url` is the credential, shown once: whoever has it reaches that port, or reads that file or what
    is below that folder, until it expires, is taken back, or the runtime gets another generation."""
    id = conversations.id_of(conversation)
    made = await services.links.make(owner.tenant, owner.user, id, body.opening())
    return _new(*made, f"/api/v2/conversations/{id}/links", response, services.link_url)


@router.get("/conversations/{conversation}/links", responses=says({200: contents.LinkPage}))
async def list_links(
    conversation: str,
    owner: OwnerOf,
    services: ServicesOf,
    ids: IdsOf,
    paging: PagingOf,
    limit: Limit = MOST,
    sort_order: SortOrder = OLDEST_FIRST,
) -> dict[str, Any]:
    """Those that are good now, without their addresses, the oldest first unless `sort_order` says otherwise."""
    found = await services.links.list(owner.tenant, owner.user, conversations.id_of(conversation))
    return _page(found, ids, paging, limit, sort_order)


@router.get("/conversations/{conversation}/links/count", responses=says({200: operations.Count}))
async def count_links(conversation: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """How many are good now."""
    found = await services.links.list(owner.tenant, owner.user, conversations.id_of(conversation))
    return {"count": len(found), "next_page_id": None}


@router.delete("/conversations/{conversation}/links/{link}", status_code=204)
async def take_back(conversation: str, link: str, owner: OwnerOf, services: ServicesOf) -> None:
    """It opens nothing any more, and what came by it is ended: here at once, on other replicas within a second."""
    id = conversations.id_of(conversation)
    await services.links.take_back(owner.tenant, owner.user, id, LinkId(parse_uuid(link, "link")))


@router.post("/runtimes/{runtime}/links", status_code=201, responses=says({201: contents.NewLink}))
async def make_of_runtime(
    body: LinkBody, runtime: str, owner: OwnerOf, services: ServicesOf, response: Response
) -> Any:
    """As of a conversation's runtime; a `path` is relative to the workspace in which its commands begin."""
    id = runtimes.id_of(runtime)
    made = await services.runtime_links.make(owner.tenant, owner.user, id, body.opening())
    return _new(*made, f"/api/v2/runtimes/{id}/links", response, services.link_url)


@router.get("/runtimes/{runtime}/links", responses=says({200: contents.LinkPage}))
async def list_of_runtime(
    runtime: str,
    owner: OwnerOf,
    services: ServicesOf,
    ids: IdsOf,
    paging: PagingOf,
    limit: Limit = MOST,
    sort_order: SortOrder = OLDEST_FIRST,
) -> dict[str, Any]:
    """As of a conversation's runtime."""
    found = await services.runtime_links.list(owner.tenant, owner.user, runtimes.id_of(runtime))
    return _page(found, ids, paging, limit, sort_order)


@router.get("/runtimes/{runtime}/links/count", responses=says({200: operations.Count}))
async def count_links_of_runtime(runtime: str, owner: OwnerOf, services: ServicesOf) -> dict[str, Any]:
    """How many are good now."""
    found = await services.runtime_links.list(owner.tenant, owner.user, runtimes.id_of(runtime))
    return {"count": len(found), "next_page_id": None}


@router.delete("/runtimes/{runtime}/links/{link}", status_code=204)
async def take_back_of_runtime(runtime: str, link: str, owner: OwnerOf, services: ServicesOf) -> None:
    """As of a conversation's runtime."""
    id = runtimes.id_of(runtime)
    await services.runtime_links.take_back(owner.tenant, owner.user, id, LinkId(parse_uuid(link, "link")))


def link_url(public_url: str, domain: str | None) -> Callable[[str], str]:
    """Of a token: a host of its own where the installation has a domain, else a path."""
    scheme, _, rest = public_url.partition("://")
    port = rest.rpartition(":")[2] if ":" in rest and not rest.endswith("]") else ""

    def url(token: str) -> str:
        if domain is None:
            return f"{public_url}/links/{token}/"
        return f"{scheme}://l-{token}.{domain}" + (f":{port}" if port else "") + "/"

    return url


def _new(link: Link, token: str, path: str, response: Response, url: Callable[[str], str]) -> dict[str, Any]:
    response.headers["location"] = f"{path}/{link.id}"
    response.headers["cache-control"] = "no-store"
    return {**_out(link), "url": url(token)}


def _page(
    found: Sequence[Link], ids: Sequence[str] | None, paging: Paging, limit: int, sort_order: str
) -> dict[str, Any]:
    page, following = whole(
        found,
        lambda one: one.id,
        by=lambda one: f"{rfc3339(one.created_at)} {one.id}",
        ids=uuids(ids),
        paging=paging,
        limit=limit,
        sort_order=sort_order,
    )
    return {"items": [None if one is None else _out(one) for one in page], "next_page_id": following}


def _out(link: Link) -> dict[str, Any]:
    return {
        "id": link.id,
        "port": link.port,
        "path": link.path,
        "user": link.user,
        "generation": link.generation,
        "created_at": rfc3339(link.created_at),
        "expires_at": rfc3339(link.expires_at),
    }
