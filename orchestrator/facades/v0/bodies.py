"""What V0 sends to start and change a conversation, and what it means to the native service (outer-api.md 4)."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from orchestrator.api import schemas
from orchestrator.api.json_values import check_json
from orchestrator.domain.conversation import StartRequest
from orchestrator.domain.errors import CallerError, InvalidRequest, NotFound, NotOffered
from orchestrator.domain.git import check_provider_name, check_repository
from orchestrator.domain.ids import ConversationId, parse_uuid
from orchestrator.domain.settings import wrap_secrets
from orchestrator.facades.record import DEFAULT_TRIGGER, labelled
from orchestrator.services.drafting import Wanted
from orchestrator.services.overrides import Overrides

_LONGEST_ID = 100
Text = Annotated[str, StringConstraints(max_length=1_000_000)]
ImageUrl = Annotated[str, StringConstraints(pattern=r"^(https?://|data:image/)")]
#: `suggested_task.task_type` -> the first message.
_TASKS = {
    "MERGE_CONFLICTS": "The branch of pull request {number} in {repo} has merge conflicts. Resolve them and push.",
    "FAILING_CHECKS": "Checks of pull request {number} in {repo} fail. Find out why, mend it and push.",
    "UNRESOLVED_COMMENTS": "Pull request {number} in {repo} has review comments that are open. Address them and push.",
    "OPEN_ISSUE": "Work on issue {number} in {repo}: {title}. Open a pull request with the result.",
}


class _V0Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _can_be_kept(cls, value: Any) -> Any:
        return check_json(value)


class SuggestedTask(_V0Body):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    task_type: str
    repo: str
    issue_number: int | None = None
    title: str = ""
    git_provider: str | None = None

    def message(self) -> str:
        """What the agent is told. Raises `InvalidRequest` for another type."""
        if self.task_type not in _TASKS:
            raise InvalidRequest(
                f"there is no task type {self.task_type[:40]!r}",
                field="suggested_task.task_type",
                hint=f"one of {', '.join(_TASKS)}",
            )
        return _TASKS[self.task_type].format(number=self.issue_number, repo=self.repo, title=self.title)


class StartBody(_V0Body):
    """`POST /api/conversations`. A field that is not known is a mistake of the caller's (422)."""

    repository: Annotated[str, StringConstraints(max_length=500)] | None = None
    git_provider: str | None = None
    selected_branch: Annotated[str, StringConstraints(max_length=250)] | None = None
    initial_user_msg: Text | None = None
    image_urls: Annotated[list[ImageUrl], Field(max_length=20)] | None = None
    replay_json: str | None = None
    suggested_task: SuggestedTask | None = None
    create_microagent: dict[str, Any] | None = None
    conversation_instructions: Text | None = None
    mcp_config: dict[str, Any] | None = None
    conversation_id: str | None = None

    def wanted(self) -> Wanted:
        """As the native service takes it. Raises `InvalidRequest`, `NotOffered`, `CallerError` for a bad id."""
        if self.replay_json:
            raise NotOffered("replay_json: a recorded trajectory cannot be replayed here", hint="leave it out")
        if self.create_microagent:
            raise NotOffered("create_microagent: there are no microagents here", hint="ask for it in initial_user_msg")
        repository = self.repository or (self.suggested_task.repo if self.suggested_task else None) or None
        branch = (self.selected_branch or None) if repository else None  # of nothing, it means nothing
        check_repository(repository, branch)
        return Wanted(
            id=None if self.conversation_id is None else v0_id(self.conversation_id),
            request=StartRequest(
                repository=repository,
                branch=branch,
                git_provider=check_provider_name(self.git_provider) if self.git_provider else None,
                initial_message=None if self.image_urls else self.text(),
            ),
            overrides=Overrides(settings=wrap_secrets(self._settings())),
            title=None,
            labels=labelled({"trigger": DEFAULT_TRIGGER}),
        )

    def text(self) -> str | None:
        """The first message's text, if there is a first message."""
        if self.initial_user_msg and self.initial_user_msg.strip():
            return self.initial_user_msg
        return self.suggested_task.message() if self.suggested_task else None

    def parts(self) -> list[dict[str, Any]]:
        """The first message where it has images; empty where it has none."""
        if not self.image_urls:
            return []
        text = self.text()
        spoken = [{"type": "text", "text": text}] if text else []
        return [*spoken, {"type": "image", "image_urls": self.image_urls}]

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        if self.conversation_instructions:
            context = {"system_message_suffix": self.conversation_instructions}
            settings["agent_settings"] = {"agent_context": context}
        if self.mcp_config:
            settings["older"] = {"mcp_config": self.mcp_config}
        return settings


class StartAgainBody(_V0Body):
    """`providers_set` names what is stored here already, and is not needed."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    providers_set: list[str] | None = None


class TitleBody(_V0Body):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    title: schemas.Name


class MessageBody(_V0Body):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    message: Annotated[str, StringConstraints(min_length=1, max_length=1_000_000)]


class ActionArgs(_V0Body):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    content: Text = ""
    image_urls: Annotated[list[ImageUrl], Field(max_length=20)] | None = None


class ActionBody(_V0Body):
    """A V0 action. Only a user's message can be put in from outside."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    action: str
    args: ActionArgs = ActionArgs()

    def content(self) -> str | list[dict[str, Any]]:
        """What the message holds. Raises `NotOffered` for another action, `InvalidRequest` for one without content."""
        if self.action != "message":
            raise NotOffered(
                f"the action {self.action[:40]!r} cannot be put in from here",
                hint="send a message; stop and start have routes of their own",
            )
        if not self.args.content.strip() and not self.args.image_urls:
            raise InvalidRequest("the message has no content", field="args.content")
        if not self.args.image_urls:
            return self.args.content
        text = [{"type": "text", "text": self.args.content}] if self.args.content else []
        return [*text, {"type": "image", "image_urls": self.args.image_urls}]


def v0_id(text: str) -> ConversationId:
    """Raises `CallerError` (400) for what no id can be, `NotFound` for what none of ours is."""
    if len(text) > _LONGEST_ID or ".." in text or "/" in text or "\\" in text or not text.isprintable():
        raise CallerError("that is no conversation id", hint="send 32 hexadecimal digits, with or without dashes")
    try:
        return ConversationId(parse_uuid(text, "conversation_id"))
    except InvalidRequest:
        raise NotFound("there is no such conversation") from None
