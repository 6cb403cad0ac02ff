"""What V1 sends to start, change and address an app-conversation, and what it means to the native service
(outer-api.md 5). Unknown fields are passed over, as this generation of clients expects."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from orchestrator.api import schemas
from orchestrator.api.json_values import check_json
from orchestrator.domain.conversation import StartRequest
from orchestrator.domain.errors import CallerError, InvalidRequest, NotOffered
from orchestrator.domain.git import check_provider_name, check_repository
from orchestrator.domain.ids import ConversationId, parse_uuid
from orchestrator.domain.secrets import check_secret_name, check_secret_value
from orchestrator.domain.settings import wrap_secrets
from orchestrator.facades.record import DEFAULT_TRIGGER, labelled
from orchestrator.services.drafting import Wanted
from orchestrator.services.messages import Content
from orchestrator.services.overrides import Overrides

Text = Annotated[str, StringConstraints(max_length=1_000_000)]
ImageUrl = Annotated[str, StringConstraints(pattern=r"^(https?://|data:image/)")]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Short = Annotated[str, StringConstraints(max_length=250)]


class _V1Body(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _can_be_kept(cls, value: Any) -> Any:
        return check_json(value)


class Part(_V1Body):
    """Text, or images. Older scripts leave `type` out of text."""

    type: Literal["text", "image"] = "text"
    text: Text | None = None
    image_urls: Annotated[list[ImageUrl], Field(min_length=1, max_length=20)] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "Part":
        if self.type == "text" and self.text is None:
            raise ValueError("text is missing")
        if self.type == "image" and self.image_urls is None:
            raise ValueError("image_urls is missing")
        return self

    def plain(self) -> dict[str, Any]:
        """As the agent server takes it."""
        if self.type == "image":
            return {"type": "image", "image_urls": self.image_urls}
        return {"type": "text", "text": self.text}


class MessageBody(_V1Body):
    role: Literal["user"] = "user"
    content: Annotated[list[Part], Field(min_length=1, max_length=50)]
    run: bool = True

    def plain(self) -> Content:
        """One text as text, else the parts. Raises `NotOffered` for a message that is not to start the agent."""
        if not self.run:
            raise NotOffered(
                "run=false: a message that does not start the agent is not taken here",
                hint="send it to the conversation's agent server, or leave run out",
            )
        if len(self.content) == 1 and self.content[0].text:
            return self.content[0].text
        return [part.plain() for part in self.content]


class FirstMessage(MessageBody):
    """Without content there is no first message."""

    content: Annotated[list[Part], Field(max_length=50)] = []


class StartBody(_V1Body):
    """`POST /api/v1/app-conversations`. All of it is optional."""

    initial_message: FirstMessage | None = None
    conversation_id: UUID | None = None
    sandbox_id: Short | None = None
    title: schemas.Name | None = None
    llm_model: ModelName | None = None
    selected_repository: Annotated[str, StringConstraints(max_length=500)] | None = None
    selected_branch: Short | None = None
    git_provider: Short | None = None
    system_message_suffix: Text | None = None
    agent_type: Literal["default", "plan"] | None = None
    trigger: Short | None = None
    pr_number: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=20)] | None = None
    parent_conversation_id: UUID | None = None
    secrets: dict[str, str] | None = None
    plugins: list[Any] | None = None
    processors: list[Any] | None = None
    public: bool | None = None

    def refuse_what_is_missing(self) -> None:
        """Raises `NotOffered`."""
        if self.agent_type == "plan":
            raise NotOffered("agent_type plan: there is one agent here", hint="leave it out")
        if self.plugins:
            raise NotOffered("plugins: they cannot be given by this route", hint="start it on its agent server")
        if self.processors:
            raise NotOffered("processors: there are none here", hint="POST /api/v2/webhooks tells you of events")
        if self.sandbox_id:
            raise NotOffered(
                "sandbox_id: every conversation has a sandbox of its own here",
                hint="leave it out, or use its agent server",
            )

    @property
    def id(self) -> ConversationId | None:
        return None if self.conversation_id is None else ConversationId(str(self.conversation_id))

    def first(self) -> Content | None:
        """The first message, if there is one."""
        said = self.initial_message
        if said is None or not said.content:
            return None
        content = said.plain()
        return content if content and (not isinstance(content, str) or content.strip()) else None

    def wanted(self) -> Wanted:
        """As the native service takes it; a first message with more than text is sent apart. Raises `InvalidRequest`,
        `NotOffered`."""
        self.refuse_what_is_missing()
        repository = self.selected_repository or None
        branch = (self.selected_branch or None) if repository else None  # of nothing, it means nothing
        check_repository(repository, branch)
        first = self.first()
        secrets = {check_secret_name(name): check_secret_value(value) for name, value in (self.secrets or {}).items()}
        return Wanted(
            id=self.id,
            request=StartRequest(
                repository=repository,
                branch=branch,
                git_provider=check_provider_name(self.git_provider) if self.git_provider else None,
                initial_message=first if isinstance(first, str) else None,
            ),
            overrides=Overrides(settings=wrap_secrets(self._settings()), secrets=secrets),
            title=self.title,
            labels=self._labels(),
        )

    def _settings(self) -> dict[str, Any]:
        agent: dict[str, Any] = {}
        if self.llm_model:
            agent["llm"] = {"model": self.llm_model}
        if self.system_message_suffix:
            agent["agent_context"] = {"system_message_suffix": self.system_message_suffix}
        return {"agent_settings": agent} if agent else {}

    def _labels(self) -> dict[str, str]:
        return labelled(
            {
                "trigger": self.trigger or DEFAULT_TRIGGER,
                "pr_number": ",".join(map(str, self.pr_number)) if self.pr_number else None,
                "parent": str(self.parent_conversation_id) if self.parent_conversation_id else None,
                "llm_model": self.llm_model,
                "public": _yes_or_no(self.public),
            }
        )


class PatchBody(_V1Body):
    """What is absent or null stays."""

    title: schemas.Name | None = None
    public: bool | None = None
    selected_repository: Short | None = None
    selected_branch: Short | None = None
    git_provider: Short | None = None

    def labels(self) -> dict[str, str]:
        """All but the title."""
        fields = {name: getattr(self, name) for name in ("selected_repository", "selected_branch", "git_provider")}
        return labelled({**fields, "public": _yes_or_no(self.public)})


def _yes_or_no(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()


def app_id(text: str) -> ConversationId:
    """Raises `InvalidRequest`."""
    return ConversationId(parse_uuid(text, "conversation_id"))


def app_ids(texts: list[str], *, most: int, what: str) -> list[str]:
    """Of a batch. Raises `CallerError` (400) for too many, and for one that is no UUID."""
    if len(texts) > most:
        raise CallerError(f"at most {most} {what} at once", hint="ask in several requests")
    try:
        return [parse_uuid(text, what) for text in texts]
    except InvalidRequest as exc:
        raise CallerError(exc.message, hint=exc.hint) from None
