//! The dialects, as data: which attributes fill which column, in order of trust.
//!
//! OTel GenAI (new and legacy), OpenInference, OpenLLMetry, traceAI, Vercel AI, pydantic-ai, LiteLLM v1 and v2,
//! Langfuse, and tracegate's own `gateway.*` and `release.*`. First present wins; an empty text is not present.
//! The table in `docs/attributes.md` is written from these lists. What is content stands in `content_keys`.

use super::slot::{Place, Slot, Source, helper, span, stamp};

/// Every attribute lookup of the reader.
pub(super) const SOURCES: &[Source] = &[
    span(
        Slot::Role, "role",
        &[
            "gen_ai.operation.name",
            "openinference.span.kind",
            "gen_ai.span.kind",
            "ai.operationId",
            "traceloop.span.kind",
            "llm.request.type",
            "langfuse.observation.type",
        ],
    )
    .note(
        "usage never makes a span a call; with `ai.operationId` only its `.doGenerate`, `.doStream` and `.doEmbed` are \
         calls; `raw_gen_ai_request` is none; without a source a SERVER span is `server`, a span named `guardrail` with a \
         guardrail's name is `guardrail`, and anything else `other`",
    ),
    span(
        Slot::Provider, "provider",
        &[
            "gen_ai.provider.name",
            "gen_ai.system",
            "llm.provider",
            "llm.system",
            "ai.model.provider",
        ],
    )
    .note("`gen_ai.system` and `ai.model.provider` are cut at the first point if `ai.operationId` is present"),
    helper(Slot::GenAiRequestModel, &["gen_ai.request.model"])
        .note("request model; on traceAI spans the response model"),
    span(
        Slot::RequestModel, "request_model",
        &["llm.request.model_name", "ai.model.id", "model_name", "langfuse.observation.model.name"],
    )
    .note(
        "after `gen_ai.request.model`, and before `model` in the JSON of `llm.invocation_parameters`, \
         `embedding.invocation_parameters` or `gen_ai.request.parameters`; on traceAI spans that JSON comes first; on an ERROR span `llm.model_name` comes last",
    ),
    span(
        Slot::ResponseModel, "response_model",
        &["gen_ai.response.model", "llm.response.model_name", "ai.response.model"],
    )
    .note("`llm.model_name` comes before `ai.response.model`, and never counts on an ERROR span"),
    helper(Slot::LlmModelName, &["llm.model_name", "embedding.model_name"]).note("response model; on an ERROR span the request model"),
    helper(Slot::PricedModel, &["litellm.provider.model"]).note("the model that is priced, before the response model"),
    span(
        Slot::PromptTokens, "prompt_tokens",
        &[
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.prompt_tokens",
            "llm.token_count.prompt",
            "ai.usage.inputTokens",
            "ai.usage.promptTokens",
            "ai.usage.tokens",
            USAGE_DETAILS,
        ],
    )
    .note("calls only; of `langfuse.observation.usage_details` its `input`; cached tokens are part of it"),
    span(
        Slot::CompletionTokens, "completion_tokens",
        &[
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.completion_tokens",
            "llm.token_count.completion",
            "ai.usage.outputTokens",
            "ai.usage.completionTokens",
            USAGE_DETAILS,
        ],
    )
    .note("calls only; of `langfuse.observation.usage_details` its `output`; reasoning tokens are part of it"),
    helper(
        Slot::TotalTokens,
        &[
            "gen_ai.usage.total_tokens",
            "llm.usage.total_tokens",
            "llm.token_count.total",
            "ai.usage.totalTokens",
        ],
    )
    .note("never stored: a total that contradicts prompt + completion is counted"),
    span(
        Slot::CacheReadTokens, "cache_read_tokens",
        &[
            "gen_ai.usage.cache_read.input_tokens",
            "llm.token_count.prompt_details.cache_read",
            "gen_ai.usage.input_tokens.cache_read",
            "gen_ai.usage.cache_read_tokens",
            "ai.usage.inputTokenDetails.cacheReadTokens",
            "ai.usage.cachedInputTokens",
            "gen_ai.usage.details.cache_read_tokens",
            "gen_ai.usage.cache_read_input_tokens",
            USAGE_OBJECT,
        ],
    )
    .note("calls only; of `metadata.usage_object` its `cached_tokens`"),
    span(
        Slot::CacheWriteTokens, "cache_write_tokens",
        &[
            "gen_ai.usage.cache_write.input_tokens",
            "gen_ai.usage.cache_creation.input_tokens",
            "llm.token_count.prompt_details.cache_write",
            "gen_ai.usage.cache_write_tokens",
            "ai.usage.inputTokenDetails.cacheWriteTokens",
            "gen_ai.usage.cache_creation_input_tokens",
            "gen_ai.usage.cache_write_input_tokens",
        ],
    )
    .note("calls only"),
    span(
        Slot::ReasoningTokens, "reasoning_tokens",
        &[
            "gen_ai.usage.reasoning.output_tokens",
            "gen_ai.usage.reasoning_tokens",
            "llm.token_count.completion_details.reasoning",
            "gen_ai.usage.output_tokens.reasoning",
            "gen_ai.usage.details.reasoning_tokens",
            "ai.usage.outputTokenDetails.reasoningTokens",
            "ai.usage.reasoningTokens",
            USAGE_OBJECT,
        ],
    )
    .note("calls only; of `metadata.usage_object` its `reasoning_tokens`"),
    span(
        Slot::EmitterCost, "emitter_cost_usd",
        &[
            "llm.cost.total",
            "gen_ai.cost.total_cost",
            "litellm.cost.total",
            "gen_ai.cost.total",
            "gen_ai.usage.cost",
            "operation.cost",
            COST_DETAILS,
        ],
    )
    .note(
        "calls only, USD; of `langfuse.observation.cost_details` its `total`, then `response_cost` in `hidden_params`; 0 \
         beside no usage is NULL",
    ),
    span(
        Slot::FinishReason, "finish_reason",
        &[
            "gen_ai.response.finish_reasons",
            "llm.finish_reason",
            "ai.response.finishReason",
            "gen_ai.response.finish_reason",
        ],
    )
    .note("the first of a list; `tool_call`, `tool-calls` and `tool_use` are `tool_calls`, `end_turn` is `stop`"),
    span(Slot::ErrorType, "error_type", &["error.type", EXCEPTION_TYPE, "error.code"]).note(
        "ERROR spans only; `exception.type` on the span or its events; rate limits are `rate_limited`, timeouts `timed_out`",
    ),
    span(Slot::HttpStatus, "http_status", &["http.response.status_code", "http.status_code"]).note(
        "else `Error code: NNN` or `status_code: NNN` in `exception.message`, else in the status message",
    ),
    helper(Slot::ErrorText, &[EXCEPTION_MESSAGE]).note("may say the HTTP status"),
    span(Slot::ResponseId, "response_id", &["gen_ai.response.id", "ai.response.id"]),
    span(
        Slot::RequestId, "request_id",
        &[
            "gateway.request.id",
            "litellm.trace_id",
            "metadata.litellm_trace_id",
            "http.request.header.x-request-id",
            "http.request.header.x_request_id",
            "x_request_id",
            "request.id",
        ],
    )
    .note("one user request, the same on its retries and fallbacks; of a list its first"),
    span(
        Slot::Ttft, "ttft_ms",
        &[
            "gen_ai.response.time_to_first_chunk",
            "gen_ai.client.operation.time_to_first_chunk",
            "ai.response.msToFirstChunk",
            FIRST_TOKEN_EVENT,
            COMPLETION_START_TIME,
        ],
    )
    .note(
        "seconds, `ai.response.msToFirstChunk` and configured keys ms; the event is the first `First Token Stream Event`, \
         `gen_ai.content.completion.chunk` or `ai.stream.firstChunk`",
    ),
    span(Slot::ToolName, "tool_name", &["gen_ai.tool.name", "tool.name", "ai.toolCall.name"])
        .note("on calls, else the first tool that the answer asks for"),
    span(
        Slot::Session, "session_id",
        &[
            "gen_ai.conversation.id",
            "session.id",
            "langfuse.session.id",
            "traceloop.association.properties.session_id",
        ],
    ),
    span(Slot::User, "user_id", &[
            "user.id",
            "langfuse.user.id",
            "llm.user",
            "gen_ai.user",
            "traceloop.association.properties.user_id",
        ],
    ),
    span(Slot::Agent, "agent", &["gen_ai.agent.name", "agent.name", "agent_name"])
        .note("a weak source of the trace's route"),
    span(Slot::Workflow, "workflow", &["gen_ai.workflow.name", "traceloop.workflow.name"])
        .note("a weak source of the trace's route, asked before `agent`"),
    span(
        Slot::PromptName, "prompt_name",
        &[
            "gen_ai.prompt.name",
            "traceloop.prompt.key",
            "langfuse.observation.prompt.name",
        ],
    ),
    span(
        Slot::PromptVersion, "prompt_version",
        &[
            "gen_ai.prompt.version",
            "llm.prompt_template.version",
            "gen_ai.prompt.template.version",
            "traceloop.prompt.version",
            "langfuse.observation.prompt.version",
        ],
    ),
    span(Slot::GuardrailName, "guardrail_name", &["gen_ai.guardrail.name", "guardrail_name"]),
    span(Slot::GuardrailResult, "guardrail_result", &["gen_ai.guardrail.result", "guardrail_status"]),
    span(Slot::GuardrailScore, "guardrail_score", &["gen_ai.guardrail.score"]),
    stamp(Slot::Deployment, "deployment", &["release.deployment_id"]).note("else `model_id` in `hidden_params`"),
    stamp(Slot::ToolsVersion, "tools_version", &["release.tools.version"])
        .note("on calls, else a hash of the captured definitions (docs/checks.md)"),
    stamp(Slot::GuardrailsVersion, "guardrails_version", &["release.guardrails.version"]),
    stamp(Slot::CacheVersion, "cache_version", &["release.cache.version"]),
    stamp(Slot::FallbackVersion, "fallback_version", &["release.fallback.version"]),
    stamp(Slot::PolicyVersion, "policy_version", &["release.policy.version"]),
    stamp(Slot::Split, "split", &["gateway.route.split"]),
    stamp(Slot::MirrorKind, "mirror_kind", &["gateway.mirror.kind"]),
    stamp(Slot::Shadow, "shadow", &["gateway.mirror.shadow"]),
    span(Slot::MirrorKey, "mirror_key", &["gateway.mirror.key"]),
    span(Slot::CacheHit, "cache_hit", &["gateway.cache.hit"]),
    span(Slot::Retries, "retries", &["gateway.retry.count"]),
    span(Slot::Fallback, "fallback", &["gateway.fallback"]),
    span(Slot::FallbackReason, "fallback_reason", &["gateway.fallback.reason"]),
    span(Slot::RatelimitRemaining, "ratelimit_remaining", &["gateway.ratelimit.remaining_requests"]),
    // The trace's route also has weaker sources, which assembly asks once no span of the trace has a `route`: `workflow`,
    // `agent`, the key of a declared feature flag, `service.name`. In this column they would win over an explicit route
    // that stands on a span further down.
    stamp(Slot::Route, "route", &["gateway.route.name", "release.route"])
        .late(&["litellm.model_group"])
        .note("explicit routes only; a trace without one takes `workflow`, `agent`, a declared flag's key, `service.name`"),
    stamp(Slot::Color, "color", &["gateway.route.color", "release.color"])
        .note("blue or green; after configured keys the variant of a declared feature flag, if it is a color"),
    stamp(Slot::Version, "version", &["gateway.route.version", "release.version"])
        .note("a trace without one takes `service.version`"),
    stamp(Slot::Cohort, "cohort", &["release.cohort"])
        .late(&["litellm.metadata.cohort", "traceloop.association.properties.cohort"])
        .note("last, copies of these and of configured keys, behind each prefix that clients put before them"),
    Source::new(Slot::Variant, Some("variant"), Place::Span, &[])
        .note("variant of a declared feature flag, from the span's attributes or its events"),
    helper(Slot::FlagKey, &[FLAG_KEY]).note("counts if declared by `feature_flag` in `[attributes]`"),
    helper(Slot::FlagVariant, &[FLAG_VARIANT, FLAG_VARIANT_LEGACY]).note("variant of that flag"),
    span(Slot::Host, "host", &["server.address", "net.peer.name"]),
    Source::new(Slot::Service, Some("service_name"), Place::Resource, &["service.name"]),
    Source::new(Slot::Metadata, None, Place::Resource, &["metadata"])
        .note("traceAI: a JSON text that may hold the stamps route, color, version and cohort"),
    span(
        Slot::Input, "input",
        &[
            "gen_ai.input.messages",
            "input.value",
            "ai.prompt.messages",
            "ai.prompt",
            "gen_ai.tool.call.arguments",
            "ai.toolCall.args",
            "ai.toolCall.input",
            "tool_arguments",
            "traceloop.entity.input",
            "langfuse.observation.input",
        ],
    )
    .note("under `keep` only; else the numbered `llm.input_messages`, `gen_ai.input.messages` or `gen_ai.prompt` as JSON"),
    span(
        Slot::Output, "output",
        &[
            "gen_ai.output.messages",
            "output.value",
            "ai.response.object",
            "ai.response.text",
            "ai.response.toolCalls",
            "gen_ai.tool.call.result",
            "ai.toolCall.result",
            "ai.toolCall.output",
            "tool_response",
            "traceloop.entity.output",
            "langfuse.observation.output",
        ],
    )
    .note(
        "under `keep` only; else the numbered `llm.output_messages`, `gen_ai.output.messages` or `gen_ai.completion` as JSON",
    ),
    helper(Slot::AiOperation, &["ai.operationId"]).note("marks a Vercel AI span"),
    helper(Slot::TraceAiKind, &["gen_ai.span.kind"]).note("marks a traceAI span"),
    helper(
        Slot::Parameters,
        &[
            "llm.invocation_parameters",
            "embedding.invocation_parameters",
            "gen_ai.request.parameters",
        ],
    )
    .note("JSON text with the request's `model`"),
    helper(Slot::HiddenParams, &["hidden_params"]).note("JSON text of LiteLLM with `model_id` and `response_cost`"),
];

/// Key of the exception's type, on the span or on its `exception` event.
pub(super) const EXCEPTION_TYPE: &str = "exception.type";
/// Key of the exception's message, on the span or on its `exception` event.
pub(super) const EXCEPTION_MESSAGE: &str = "exception.message";
/// LiteLLM's usage as a Python repr.
pub(super) const USAGE_OBJECT: &str = "metadata.usage_object";
/// Langfuse's usage as a JSON text.
pub(super) const USAGE_DETAILS: &str = "langfuse.observation.usage_details";
/// Langfuse's cost as a JSON text.
pub(super) const COST_DETAILS: &str = "langfuse.observation.cost_details";
/// Langfuse's time of the first token, RFC 3339.
pub(super) const COMPLETION_START_TIME: &str = "langfuse.observation.completion_start_time";
/// Not an attribute: stands for the time of one of [`FIRST_TOKEN_EVENTS`].
pub(super) const FIRST_TOKEN_EVENT: &str = "(event) first token";

/// Key of a feature flag, on the span or on one of [`FLAG_EVENTS`].
pub(super) const FLAG_KEY: &str = "feature_flag.key";
/// Variant of a feature flag.
pub(super) const FLAG_VARIANT: &str = "feature_flag.result.variant";
/// Variant of a feature flag, as older clients name it.
pub(super) const FLAG_VARIANT_LEGACY: &str = "feature_flag.variant";
/// Events that say how a feature flag was evaluated.
pub(super) const FLAG_EVENTS: &[&str] = &["feature_flag.evaluation", "feature_flag"];

/// Attribute in which the reader keeps the key of the declared flag whose variant it took: a weak source of the route.
pub(crate) const FLAG_ATTRIBUTE: &str = "tracegate.flag";

/// Span that repeats a request of LiteLLM as the provider got it.
pub(super) const RAW_REQUEST_SPAN: &str = "raw_gen_ai_request";
/// Span of a guardrail of LiteLLM.
pub(super) const GUARDRAIL_SPAN: &str = "guardrail";

/// Events whose first occurrence is the first token.
pub(super) const FIRST_TOKEN_EVENTS: &[&str] = &[
    "First Token Stream Event",
    "gen_ai.content.completion.chunk",
    "ai.stream.firstChunk",
];

/// Event and log record that carries an evaluation.
pub(super) const EVALUATION_EVENT: &str = "gen_ai.evaluation.result";
/// Legacy log record that carries user feedback.
pub(super) const FEEDBACK_EVENT: &str = "gen_ai.evaluation.user_feedback";

/// Before each cohort key, built in or configured, client libraries put one of these.
pub(super) const COHORT_PREFIXES: [&str; 5] = [
    "litellm.metadata.",
    "metadata.",
    "traceloop.association.properties.",
    "langfuse.trace.metadata.",
    "baggage.",
];
