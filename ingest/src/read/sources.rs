//! The dialects, as data: which attributes fill which column, in order of trust, and which attributes carry content.
//!
//! OTel GenAI (new and legacy), OpenInference, OpenLLMetry, traceAI, Vercel AI, pydantic-ai, LiteLLM v1 and v2,
//! Langfuse, and tracegate's own `gateway.*` and `release.*`. First present wins; an empty text is not present.

macro_rules! slots {
    ($($(#[$doc:meta])* $slot:ident,)*) => {
        /// What an attribute may fill. One per column that has sources, and a few that only help to understand others.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub(super) enum Slot {
            $($(#[$doc])* $slot,)*
        }

        impl Slot {
            /// All of them, by number.
            pub(super) const ALL: &[Self] = &[$(Self::$slot),*];
        }
    };
}

slots! {
    Role,
    Provider,
    RequestModel,
    ResponseModel,
    PromptTokens,
    CompletionTokens,
    CacheReadTokens,
    CacheWriteTokens,
    ReasoningTokens,
    EmitterCost,
    FinishReason,
    ErrorType,
    HttpStatus,
    ResponseId,
    Deployment,
    Ttft,
    ToolName,
    Session,
    User,
    Agent,
    Workflow,
    PromptName,
    PromptVersion,
    GuardrailName,
    GuardrailResult,
    GuardrailScore,
    ToolsVersion,
    GuardrailsVersion,
    CacheVersion,
    FallbackVersion,
    PolicyVersion,
    Split,
    MirrorKey,
    MirrorKind,
    Shadow,
    CacheHit,
    Retries,
    Fallback,
    FallbackReason,
    RatelimitRemaining,
    Route,
    Color,
    Version,
    Cohort,
    Host,
    Service,
    Input,
    Output,
    /// `gen_ai.request.model`: the request model, or on traceAI spans the response model.
    GenAiRequestModel,
    /// `llm.model_name`: the response model, or on an ERROR span the request model.
    LlmModelName,
    /// `litellm.provider.model`: what LiteLLM really called, for the price.
    PricedModel,
    /// Marks a Vercel AI span.
    AiOperation,
    /// Marks a traceAI span.
    TraceAiKind,
    /// Text that may say `Error code: NNN`.
    ErrorText,
    /// JSON text with the request's parameters.
    Parameters,
    /// JSON text of LiteLLM with `model_id` and `response_cost`.
    HiddenParams,
    /// JSON text with stamps on a traceAI resource.
    Metadata,
}

/// Number of slots; sets of them are one `u64`.
pub(super) const SLOTS: usize = Slot::ALL.len();

/// Where the sources of a slot are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Span,
    /// On the span, then on its resource.
    SpanThenResource,
    Resource,
}

/// The ordered sources of one slot.
pub(super) struct Source {
    pub(super) slot: Slot,
    pub(super) place: Place,
    pub(super) keys: &'static [&'static str],
    /// Trusted less than configured keys and than the resource; only on spans.
    pub(super) late: &'static [&'static str],
}

const fn span(slot: Slot, keys: &'static [&'static str]) -> Source {
    Source {
        slot,
        place: Place::Span,
        keys,
        late: &[],
    }
}

const fn stamp(slot: Slot, keys: &'static [&'static str], late: &'static [&'static str]) -> Source {
    Source {
        slot,
        place: Place::SpanThenResource,
        keys,
        late,
    }
}

/// Every attribute lookup of the reader.
pub(super) const SOURCES: &[Source] = &[
    span(
        Slot::Role,
        &[
            "gen_ai.operation.name",
            "openinference.span.kind",
            "gen_ai.span.kind",
            "ai.operationId",
            "traceloop.span.kind",
            "llm.request.type",
        ],
    ),
    span(
        Slot::Provider,
        &[
            "gen_ai.provider.name",
            "gen_ai.system",
            "llm.provider",
            "llm.system",
            "ai.model.provider",
        ],
    ),
    span(Slot::GenAiRequestModel, &["gen_ai.request.model"]),
    span(
        Slot::RequestModel,
        &["llm.request.model_name", "ai.model.id", "model_name"],
    ),
    span(
        Slot::ResponseModel,
        &["gen_ai.response.model", "llm.response.model_name", "ai.response.model"],
    ),
    span(Slot::LlmModelName, &["llm.model_name"]),
    span(Slot::PricedModel, &["litellm.provider.model"]),
    span(
        Slot::PromptTokens,
        &[
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.prompt_tokens",
            "llm.token_count.prompt",
            "ai.usage.inputTokens",
            "ai.usage.promptTokens",
            "ai.usage.tokens",
        ],
    ),
    span(
        Slot::CompletionTokens,
        &[
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.completion_tokens",
            "llm.token_count.completion",
            "ai.usage.outputTokens",
            "ai.usage.completionTokens",
        ],
    ),
    span(
        Slot::CacheReadTokens,
        &[
            "gen_ai.usage.cache_read.input_tokens",
            "llm.token_count.prompt_details.cache_read",
            "gen_ai.usage.input_tokens.cache_read",
            "gen_ai.usage.cache_read_tokens",
            "ai.usage.inputTokenDetails.cacheReadTokens",
            "ai.usage.cachedInputTokens",
            "gen_ai.usage.details.cache_read_tokens",
            USAGE_OBJECT,
        ],
    ),
    span(
        Slot::CacheWriteTokens,
        &[
            "gen_ai.usage.cache_write.input_tokens",
            "gen_ai.usage.cache_creation.input_tokens",
            "llm.token_count.prompt_details.cache_write",
            "gen_ai.usage.cache_write_tokens",
            "ai.usage.inputTokenDetails.cacheWriteTokens",
        ],
    ),
    span(
        Slot::ReasoningTokens,
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
    ),
    span(
        Slot::EmitterCost,
        &[
            "llm.cost.total",
            "gen_ai.cost.total_cost",
            "litellm.cost.total",
            "gen_ai.cost.total",
            "gen_ai.usage.cost",
            "operation.cost",
            COST_DETAILS,
        ],
    ),
    span(
        Slot::FinishReason,
        &[
            "gen_ai.response.finish_reasons",
            "llm.finish_reason",
            "ai.response.finishReason",
            "gen_ai.response.finish_reason",
        ],
    ),
    span(Slot::ErrorType, &["error.type", EXCEPTION_TYPE, "error.code"]),
    span(Slot::HttpStatus, &["http.response.status_code", "http.status_code"]),
    span(Slot::ErrorText, &[EXCEPTION_MESSAGE]),
    span(Slot::ResponseId, &["gen_ai.response.id", "ai.response.id"]),
    span(
        Slot::Ttft,
        &[
            "gen_ai.response.time_to_first_chunk",
            "gen_ai.client.operation.time_to_first_chunk",
            "ai.response.msToFirstChunk",
            FIRST_TOKEN_EVENT,
            COMPLETION_START_TIME,
        ],
    ),
    span(Slot::ToolName, &["gen_ai.tool.name", "tool.name", "ai.toolCall.name"]),
    span(
        Slot::Session,
        &["gen_ai.conversation.id", "session.id", "langfuse.session.id"],
    ),
    span(Slot::User, &["user.id", "langfuse.user.id", "llm.user", "gen_ai.user"]),
    span(Slot::Agent, &["gen_ai.agent.name", "agent.name"]),
    span(Slot::Workflow, &["gen_ai.workflow.name", "traceloop.workflow.name"]),
    span(
        Slot::PromptName,
        &[
            "gen_ai.prompt.name",
            "traceloop.prompt.key",
            "langfuse.observation.prompt.name",
        ],
    ),
    span(
        Slot::PromptVersion,
        &[
            "gen_ai.prompt.version",
            "llm.prompt_template.version",
            "gen_ai.prompt.template.version",
            "traceloop.prompt.version",
            "langfuse.observation.prompt.version",
        ],
    ),
    span(Slot::GuardrailName, &["gen_ai.guardrail.name", "guardrail_name"]),
    span(Slot::GuardrailResult, &["gen_ai.guardrail.result", "guardrail_status"]),
    span(Slot::GuardrailScore, &["gen_ai.guardrail.score"]),
    stamp(Slot::Deployment, &["release.deployment_id"], &[]),
    stamp(Slot::ToolsVersion, &["release.tools.version"], &[]),
    stamp(Slot::GuardrailsVersion, &["release.guardrails.version"], &[]),
    stamp(Slot::CacheVersion, &["release.cache.version"], &[]),
    stamp(Slot::FallbackVersion, &["release.fallback.version"], &[]),
    stamp(Slot::PolicyVersion, &["release.policy.version"], &[]),
    stamp(Slot::Split, &["gateway.route.split"], &[]),
    stamp(Slot::MirrorKind, &["gateway.mirror.kind"], &[]),
    stamp(Slot::Shadow, &["gateway.mirror.shadow"], &[]),
    span(Slot::MirrorKey, &["gateway.mirror.key"]),
    span(Slot::CacheHit, &["gateway.cache.hit"]),
    span(Slot::Retries, &["gateway.retry.count"]),
    span(Slot::Fallback, &["gateway.fallback"]),
    span(Slot::FallbackReason, &["gateway.fallback.reason"]),
    span(Slot::RatelimitRemaining, &["gateway.ratelimit.remaining_requests"]),
    stamp(
        Slot::Route,
        &["gateway.route.name", "release.route"],
        &["litellm.model_group"],
    ),
    stamp(Slot::Color, &["gateway.route.color", "release.color"], &[]),
    stamp(Slot::Version, &["gateway.route.version", "release.version"], &[]),
    stamp(
        Slot::Cohort,
        &["release.cohort"],
        &["litellm.metadata.cohort", "traceloop.association.properties.cohort"],
    ),
    span(Slot::Host, &["server.address", "net.peer.name"]),
    Source {
        slot: Slot::Service,
        place: Place::Resource,
        keys: &["service.name"],
        late: &[],
    },
    Source {
        slot: Slot::Metadata,
        place: Place::Resource,
        keys: &["metadata"],
        late: &[],
    },
    span(Slot::Input, &["gen_ai.input.messages", "input.value"]),
    span(Slot::Output, &["gen_ai.output.messages", "output.value"]),
    span(Slot::AiOperation, &["ai.operationId"]),
    span(Slot::TraceAiKind, &["gen_ai.span.kind"]),
    span(
        Slot::Parameters,
        &["llm.invocation_parameters", "gen_ai.request.parameters"],
    ),
    span(Slot::HiddenParams, &["hidden_params"]),
];

/// Key of the exception's type, on the span or on its `exception` event.
pub(super) const EXCEPTION_TYPE: &str = "exception.type";
/// Key of the exception's message, on the span or on its `exception` event.
pub(super) const EXCEPTION_MESSAGE: &str = "exception.message";
/// LiteLLM's usage as a Python repr.
pub(super) const USAGE_OBJECT: &str = "metadata.usage_object";
/// Langfuse's cost as a JSON text.
pub(super) const COST_DETAILS: &str = "langfuse.observation.cost_details";
/// Langfuse's time of the first token, RFC 3339.
pub(super) const COMPLETION_START_TIME: &str = "langfuse.observation.completion_start_time";
/// Not an attribute: stands for the time of one of [`FIRST_TOKEN_EVENTS`].
pub(super) const FIRST_TOKEN_EVENT: &str = "(event) first token";

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

/// Under each of these, client libraries copy a configured cohort key.
pub(super) const COHORT_PREFIXES: &[&str] = &["traceloop.association.properties.", "litellm.metadata.", "baggage."];

/// Attributes that carry content, whole names.
pub(super) const CONTENT_KEYS: &[&str] = &[
    "ai.embedding",
    "ai.embeddings",
    "ai.prompt",
    "ai.response.files",
    "ai.response.object",
    "ai.response.reasoning",
    "ai.response.text",
    "ai.response.toolCalls",
    "ai.toolCall.args",
    "ai.toolCall.input",
    "ai.toolCall.output",
    "ai.toolCall.result",
    "ai.value",
    "ai.values",
    "all_messages_events",
    "completion",
    "content",
    "db.query.text",
    "events",
    "final_result",
    "gen_ai.completion",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.prompt",
    "gen_ai.retrieval.documents",
    "gen_ai.retrieval.query.text",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.tool.definitions",
    "http.request.body",
    "http.response.body",
    "input",
    "input.value",
    "langfuse.observation.input",
    "langfuse.observation.output",
    "langfuse.trace.input",
    "langfuse.trace.output",
    "llm.completions",
    "llm.functions",
    "llm.input_messages",
    "llm.output_messages",
    "llm.prompt_template.template",
    "llm.prompt_template.variables",
    "llm.prompts",
    "llm.tools",
    "logfire.msg",
    "message",
    "message.content",
    "messages",
    "model_request_parameters",
    "output",
    "output.value",
    "prompt",
    "pydantic_ai.all_messages",
    "raw_input",
    "raw_output",
    "response",
    "tool.parameters",
    "tool_arguments",
    "tool_response",
    "traceloop.entity.input",
    "traceloop.entity.output",
];

/// Attributes that carry content, by how they start. Keys of [`SOURCES`] never count.
pub(super) const CONTENT_PREFIXES: &[&str] = &[
    "ai.prompt.",
    "ai.request.body",
    "ai.response.body",
    "ai.schema",
    "embedding.embeddings.",
    "embedding.text",
    "embedding.vector",
    "gen_ai.completion.",
    "gen_ai.content.",
    "gen_ai.input.messages.",
    "gen_ai.output.messages.",
    "gen_ai.prompt.",
    "gen_ai.tool.call.arguments.",
    "gen_ai.tool.definitions.",
    "http.request.body.",
    "http.response.body.",
    "llm.completions.",
    "llm.functions.",
    "llm.input_messages.",
    "llm.output_messages.",
    "llm.prompt_template.variables.",
    "llm.prompts.",
    "llm.request.functions.",
    "llm.tools.",
    "message.contents.",
    "reranker.input_documents.",
    "reranker.output_documents.",
    "reranker.query",
    "retrieval.documents.",
    "tool_call.function.arguments",
    "traceloop.prompt.template",
];

/// `llm.<provider>.<field>`: LiteLLM copies the provider's raw request and response; these fields are content.
pub(super) const RAW_CONTENT_FIELDS: &[&str] = &[
    "candidates",
    "choices",
    "content",
    "contents",
    "data",
    "extra_body",
    "functions",
    "generations",
    "input",
    "inputs",
    "message",
    "messages",
    "output",
    "outputs",
    "prompt",
    "query",
    "response_format",
    "results",
    "system",
    "systemInstruction",
    "system_instruction",
    "text",
    "tools",
];

/// Events whose attributes are content.
pub(super) const CONTENT_EVENTS: &[&str] = &[
    "gen_ai.assistant.message",
    "gen_ai.choice",
    "gen_ai.client.inference.operation.details",
    "gen_ai.content.completion",
    "gen_ai.content.completion.chunk",
    "gen_ai.content.prompt",
    "gen_ai.system.message",
    "gen_ai.tool.message",
    "gen_ai.user.message",
    "llm.content.completion.chunk",
];
