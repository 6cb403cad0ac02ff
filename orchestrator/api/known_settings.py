"""The names of settings that a runtime knows (agent-server contract, section 3.1). A name that is not among them is a
mistake of the caller's, and is said to be one: a misspelt `base_url` would send a key to somebody else.
"""

from collections.abc import Mapping
from typing import Any

#: fields of `agent_settings.llm`
LLM = frozenset(
    """
    api_key api_mode api_version auth_type aws_access_key_id aws_bedrock_runtime_endpoint aws_profile_name
    aws_region_name aws_role_name aws_secret_access_key aws_session_name aws_session_token base_url
    caching_prompt capability_overrides custom_tokenizer disable_stop_word disable_vision drop_params
    enable_encrypted_reasoning extended_thinking_budget extra_headers force_string_serializer inline_image_urls
    input_cost_per_token is_subscription litellm_extra_body log_completions log_completions_folder
    max_input_tokens max_message_chars max_output_tokens model model_canonical_name native_tool_calling
    num_retries ollama_base_url openrouter_app_name openrouter_site_url output_cost_per_token
    prompt_cache_retention provider_connection_id reasoning_effort reasoning_summary retry_max_wait
    retry_min_wait retry_multiplier seed stream stream_idle_timeout subscription_vendor temperature timeout
    top_k top_p usage_id
    """.split()
)
#: fields of `agent_settings`
AGENT = frozenset(
    """
    active_meta_profile agent agent_context agent_kind condenser enable_classify_and_switch_llm_tool llm
    mcp_config meta_profile meta_profile_llms persona schema_version tool_concurrency_limit tools verification
    """.split()
)
#: fields of `conversation_settings`
CONVERSATION = frozenset(
    """
    confirmation_mode container_browser container_cpus container_memory default_runtime max_iterations
    schema_version security_analyzer worktree_base worktree_base_ref worktree_branch_prefix
    """.split()
)


def only(known: frozenset[str], value: Any) -> Any:
    """`value` as it came. Raises ValueError naming what is not known."""
    if isinstance(value, Mapping):
        unknown = sorted(str(name)[:80] for name in value if name not in known)
        if unknown:
            raise ValueError(f"unknown field {', '.join(unknown)}")
    return value
