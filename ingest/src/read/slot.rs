//! Slots: what an attribute may fill, and how the lists of `sources` are written down.

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
    RequestId,
    /// Variant of a declared feature flag.
    Variant,
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
    /// Total tokens: only checked against the sum of prompt and completion.
    TotalTokens,
    /// Key of a feature flag that stands in the span's attributes.
    FlagKey,
    /// Its variant.
    FlagVariant,
}

/// Number of slots; sets of them are one `u64`.
pub(super) const SLOTS: usize = Slot::ALL.len();
const _: () = assert!(SLOTS <= 64, "a set of slots is one u64");

/// Where the sources of a slot are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Span,
    /// On the span, then on its resource.
    SpanThenResource,
    Resource,
}

impl Place {
    /// As the documentation says it.
    #[cfg(test)]
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Span => "span",
            Self::SpanThenResource => "span, then resource",
            Self::Resource => "resource",
        }
    }
}

/// The ordered sources of one slot.
pub(super) struct Source {
    pub(super) slot: Slot,
    /// Column of `spans` that the slot fills, `None` if it only helps to understand others.
    pub(super) column: Option<&'static str>,
    pub(super) place: Place,
    pub(super) keys: &'static [&'static str],
    /// Trusted less than configured keys and than the resource; only on spans.
    pub(super) late: &'static [&'static str],
    /// What the lists alone don't say; for the documentation.
    pub(super) note: &'static str,
}

impl Source {
    pub(super) const fn new(
        slot: Slot,
        column: Option<&'static str>,
        place: Place,
        keys: &'static [&'static str],
    ) -> Self {
        Self {
            slot,
            column,
            place,
            keys,
            late: &[],
            note: "",
        }
    }

    pub(super) const fn late(mut self, late: &'static [&'static str]) -> Self {
        self.late = late;
        self
    }

    pub(super) const fn note(mut self, note: &'static str) -> Self {
        self.note = note;
        self
    }
}

pub(super) const fn span(slot: Slot, column: &'static str, keys: &'static [&'static str]) -> Source {
    Source::new(slot, Some(column), Place::Span, keys)
}

/// Set by a gateway, a release or a deployment: users' keys for it count on resources, too.
pub(super) const fn stamp(slot: Slot, column: &'static str, keys: &'static [&'static str]) -> Source {
    Source::new(slot, Some(column), Place::SpanThenResource, keys)
}

/// Fills no column of its own.
pub(super) const fn helper(slot: Slot, keys: &'static [&'static str]) -> Source {
    Source::new(slot, None, Place::Span, keys)
}
