"""What the older surfaces had and nothing here does: each says so (501), names what is missing and where to look.

After the routes that work, so that only what is left comes here. A key is asked for first: an unknown caller learns
nothing.
"""

from fastapi import APIRouter

from orchestrator.api.auth import OwnerOf
from orchestrator.domain.errors import NotOffered
from orchestrator.facades.answers import V1Route

router = APIRouter(tags=["not offered"], route_class=V1Route)
_ON_THE_AGENT_SERVER = (
    "the conversation's own agent server has it: its address and key are in GET /api/conversations/{id}"
)
_ONE = "/api/conversations/{conversation}"
_APP = "/api/v1/app-conversations"

#: path -> what is missing, and what to do instead
MISSING = {
    f"{_ONE}/vscode-url": ("an editor in the runtime", "images have none"),
    f"{_ONE}/web-hosts": ("further ports of the runtime", _ON_THE_AGENT_SERVER),
    f"{_ONE}/microagents": ("microagents", "skills of the repository are loaded by the runtime"),
    f"{_ONE}/upload-files": ("writing files", _ON_THE_AGENT_SERVER + ", as /api/file/upload"),
    f"{_ONE}/git/changes": ("changes of the repository", _ON_THE_AGENT_SERVER + ", as /api/git/changes"),
    f"{_ONE}/git/diff": ("a diff of the repository", _ON_THE_AGENT_SERVER + ", as /api/git/diff"),
    f"{_ONE}/remember-prompt": ("prompts for microagents", "leave it out"),
    f"{_ONE}/exp-config": ("experiments", "leave it out"),
    f"{_ONE}/submit-feedback": ("feedback", "leave it out"),
    f"{_ONE}/security/{{rest:path}}": ("the security analyzer's own API", _ON_THE_AGENT_SERVER),
    "/api/options/{rest:path}": ("lists of options", "GET /api/v2/settings/effective says what is set"),
    "/api/user/{rest:path}": ("the git provider's API", "ask the provider itself"),
    "/api/keys": ("keys by this route", "POST /api/v2/tenants/{id}/api-keys"),
    "/api/keys/{key}": ("keys by this route", "DELETE /api/v2/tenants/{id}/api-keys/{key}"),
    "/api/billing/{rest:path}": ("billing", "an orchestrator of your own bills nobody"),
    "/socket.io/{rest:path}": ("Socket.IO", "GET /api/v2/conversations/{id}/events/stream, or its WebSocket"),
    f"{_APP}/{{conversation}}/switch_profile": ("profiles of models by this route", "PATCH /api/v2/settings"),
    f"{_APP}/{{conversation}}/switch_acp_model": ("agents over ACP", "leave it out"),
    f"{_APP}/{{conversation}}/skills": ("a list of skills", _ON_THE_AGENT_SERVER + ", as /api/skills"),
    f"{_APP}/{{conversation}}/hooks": ("a list of hooks", _ON_THE_AGENT_SERVER),
    f"{_APP}/start-tasks/search": ("a list of start tasks", "poll the one that you started"),
    f"{_APP}/start-tasks/count": ("a number of start tasks", "poll the one that you started"),
}


def _refuse(path: str, missing: str, instead: str) -> None:
    async def refuse(owner: OwnerOf) -> None:
        raise NotOffered(f"{missing}: not offered here", hint=instead)

    router.add_api_route(
        path, refuse, methods=["GET", "POST", "DELETE"], status_code=501, name=path, include_in_schema=False
    )


for _path, (_missing, _instead) in MISSING.items():
    _refuse(_path, _missing, _instead)
