"""What every route is given: the services, as `app` made them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from fastapi import Request

from orchestrator.domain.clock import Clock
from orchestrator.domain.conversation import Conversation
from orchestrator.security.page_marks import PageMarks
from orchestrator.services.admission import Admission
from orchestrator.services.arrivals import Arrivals
from orchestrator.services.auditing import Auditing
from orchestrator.services.call_rates import CallRates
from orchestrator.services.conversations import ConversationService
from orchestrator.services.effective import Effective
from orchestrator.services.event_feed import EventFeed
from orchestrator.services.files import Files
from orchestrator.services.forking import Forking
from orchestrator.services.git_tokens import TokenCheck
from orchestrator.services.holding import Holding
from orchestrator.services.idleness import Idleness
from orchestrator.services.images import Images
from orchestrator.services.inside import Inside
from orchestrator.services.inspection import Inspection
from orchestrator.services.keys import KeyRing
from orchestrator.services.layers import Layers, Sealer
from orchestrator.services.links import Links
from orchestrator.services.messages import Messages
from orchestrator.services.sandbox_access import SandboxAccess
from orchestrator.services.snapshots import Snapshots
from orchestrator.services.tenancy import Tenancy
from orchestrator.services.transcript import Transcript
from orchestrator.services.webhooks import Webhooks
from orchestrator.state.base import Store
from orchestrator.state.figures import Figures


@dataclass(frozen=True)
class Services:
    """Made once, in the lifespan."""

    tenancy: Tenancy
    call_rates: CallRates
    layers: Layers
    effective: Effective
    conversations: ConversationService
    runtimes: ConversationService  #: the same use cases for bare runtimes
    arrivals: Arrivals
    auditing: Auditing
    messages: Messages
    idleness: Idleness
    admission: Admission
    holding: Holding
    inspection: Inspection
    inside: Inside
    feed: EventFeed
    transcript: Transcript
    files: Files
    forking: Forking
    snapshots: Snapshots
    links: Links
    runtime_links: Links  #: the same of bare runtimes
    link_url: Callable[[str], str]
    webhooks: Webhooks
    page_marks: PageMarks
    keys: KeyRing
    sandbox_access: SandboxAccess
    sealer: Sealer
    store: Store
    clock: Clock
    token_check: TokenCheck
    images: Images | None  #: None where runtimes are made of none
    http_hosts: frozenset[str]
    runtime_url: Callable[[Conversation], str | None]
    about: Mapping[str, str]  #: what /server_info says
    figures: Callable[[], Awaitable[Figures]]  #: how much there is
    problems: Callable[[], Sequence[str]]  #: what is wrong with the state server or the journal now
    unready: Callable[[], str | None]  #: what of it keeps requests from being served


def services_of(request: Request) -> Services:
    """A dependency."""
    services: Services = request.app.state.services
    return services
