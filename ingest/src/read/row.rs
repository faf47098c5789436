//! One row of a span that was read and placed: every column from its fields and slots.

use super::{
    ReadError, Reader, Tally,
    cells::Cells,
    columns::Amounts,
    keys::{CONFIGURED, rank_of},
    priced::{Called, Names, emitter_cost, token_count},
    resolve::{self, ERROR, Role},
    slot::{SLOTS, Slot},
    slots::Slots,
    sources::{COMPLETION_START_TIME, FIRST_TOKEN_EVENT},
    span::{Context, Fields, Placed, is_id},
    stamps,
    value::{BadNumber, Number, Value},
};
use crate::price::Usage;
use arrow::datatypes::Int64Type;
use proto::Color;

// Sources that are not a number of seconds.
const TTFT_IN_MS: u8 = rank_of(Slot::Ttft, "ai.response.msToFirstChunk");
const TTFT_OF_EVENT: u8 = rank_of(Slot::Ttft, FIRST_TOKEN_EVENT);
const TTFT_OF_LANGFUSE: u8 = rank_of(Slot::Ttft, COMPLETION_START_TIME);

impl Reader {
    /// Makes a row of what was read.
    pub(super) fn close_row<'a>(
        &mut self,
        fields: &Fields<'a>,
        placed: &Placed,
        context: &Context<'_, 'a>,
        slots: &Slots<'a>,
        tally: &mut Tally,
    ) -> Result<(), ReadError> {
        let row = self.spans.rows;
        let error = fields.status == ERROR;
        let role = resolve::role(slots, fields.name, fields.kind);
        let rows = &mut self.spans;
        rows.trace_id.set_hex(row, fields.trace_id);
        rows.span_id.set_hex(row, fields.span_id);
        if is_id::<8>(fields.parent_span_id) {
            rows.parent_span_id.set_hex(row, fields.parent_span_id);
        }
        rows.start_time.set(row, placed.start);
        rows.end_time.set(row, placed.end);
        #[allow(clippy::cast_precision_loss)]
        rows.duration_ms.set(row, (placed.end - placed.start) as f64 / 1e6);
        rows.received_at.set(row, context.received.0);
        rows.role.set(row, role.word())?;
        rows.status.set(row, resolve::status_word(fields.status))?;
        if let Some(kind) = resolve::kind_word(fields.kind) {
            rows.kind.set(row, kind)?;
        }
        let mut cells = Cells {
            row,
            counts: &mut self.counts,
        };
        cells.word(&mut rows.name, Some(fields.name))?;
        cells.word(&mut rows.scope, Some(context.scope))?;
        rows.attributes.close(row);
        rows.events.close(row);
        rows.links.close(row);
        self.set_resource(row, tally);
        self.set_words(row, slots)?;
        self.set_errors(row, fields, slots)?;
        self.set_models(row, role, error, slots)?;
        if role == Role::Call && !slots.pieces.is_empty() {
            self.set_checks(row, error, slots)?;
        }
        self.set_content(row, fields, slots)?;
        self.set_sampling(row, fields.trace_state);
        if slots.has(Slot::Ttft) {
            self.set_ttft(row, placed.start, slots);
        }
        self.spans.rows += 1;
        Ok(())
    }

    fn set_resource(&mut self, row: usize, tally: &mut Tally) {
        let size = self.resource.size();
        match tally.resource_copies_left.checked_sub(size) {
            Some(left) => {
                tally.resource_copies_left = left;
                self.spans.resource.set_all(row, &self.resource);
            }
            None => self.counts.resources_left_out += 1,
        }
    }

    /// Columns that are one attribute as it is. Only the slots that are present are visited.
    fn set_words(&mut self, row: usize, slots: &Slots<'_>) -> Result<(), ReadError> {
        let rows = &mut self.spans;
        let mut cells = Cells {
            row,
            counts: &mut self.counts,
        };
        let mut left = slots.present & PLAIN;
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            left &= left - 1;
            let slot = Slot::ALL[at];
            let Some(value) = slots.get(slot) else {
                continue;
            };
            match slot {
                Slot::Service => cells.word(&mut rows.service_name, value.text())?,
                Slot::Route => cells.word(&mut rows.route, value.text())?,
                Slot::Color => {
                    let color = value
                        .text()
                        .and_then(|text| Color::parse(std::str::from_utf8(text).ok()?));
                    cells.word(&mut rows.color, color.map(|color| color.as_str().as_bytes()))?;
                }
                Slot::Version => cells.text_or_number(&mut rows.version, value)?,
                Slot::Cohort => cells.text_or_number(&mut rows.cohort, value)?,
                Slot::Agent => cells.word(&mut rows.agent, value.text())?,
                Slot::Workflow => cells.word(&mut rows.workflow, value.text())?,
                Slot::Session => cells.text(&mut rows.session_id, value)?,
                Slot::User => cells.text(&mut rows.user_id, value)?,
                Slot::ResponseId => cells.text(&mut rows.response_id, value)?,
                Slot::RequestId => cells.text(&mut rows.request_id, value)?,
                Slot::Variant => cells.text_or_number(&mut rows.variant, value)?,
                Slot::MirrorKey => cells.text(&mut rows.mirror_key, value)?,
                Slot::MirrorKind => cells.word(&mut rows.mirror_kind, value.text())?,
                Slot::Host => cells.word(&mut rows.host, value.text())?,
                Slot::ToolName => cells.word(&mut rows.tool_name, value.text())?,
                Slot::PromptName => cells.word(&mut rows.prompt_name, value.text())?,
                Slot::PromptVersion => cells.text_or_number(&mut rows.prompt_version, value)?,
                Slot::ToolsVersion => cells.text_or_number(&mut rows.tools_version, value)?,
                Slot::GuardrailsVersion => cells.text_or_number(&mut rows.guardrails_version, value)?,
                Slot::CacheVersion => cells.text_or_number(&mut rows.cache_version, value)?,
                Slot::FallbackVersion => cells.text_or_number(&mut rows.fallback_version, value)?,
                Slot::PolicyVersion => cells.text_or_number(&mut rows.policy_version, value)?,
                Slot::GuardrailName => cells.word(&mut rows.guardrail_name, value.text())?,
                Slot::GuardrailResult => cells.word(&mut rows.guardrail_result, value.text())?,
                Slot::GuardrailScore => cells.double(&mut rows.guardrail_score, value.double()),
                Slot::FallbackReason => cells.word(&mut rows.fallback_reason, value.text())?,
                Slot::FinishReason => cells.word(&mut rows.finish_reason, resolve::finish_reason(&value))?,
                Slot::Shadow => cells.flag(&mut rows.shadow, value),
                Slot::CacheHit => cells.flag(&mut rows.cache_hit, value),
                Slot::Fallback => cells.flag(&mut rows.fallback, value),
                Slot::Retries => cells.small(&mut rows.retries, value.count()),
                Slot::RatelimitRemaining => cells.count(&mut rows.ratelimit_remaining, value.count()),
                Slot::Split => cells.double(&mut rows.split, share(&value)),
                _ => {}
            }
        }
        Ok(())
    }

    fn set_errors(&mut self, row: usize, fields: &Fields<'_>, slots: &Slots<'_>) -> Result<(), ReadError> {
        let stated = slots
            .get(Slot::HttpStatus)
            .and_then(|value| i32::try_from(value.count().ok()?).ok());
        let http_status = stated
            .or_else(|| resolve::error_code(slots.text(Slot::ErrorText)?))
            .or_else(|| resolve::error_code(fields.status_message));
        let rows = &mut self.spans;
        if let Some(status) = http_status {
            rows.http_status.set(row, status);
        }
        if fields.status == ERROR {
            let failure = resolve::failure(slots.get(Slot::ErrorType), http_status);
            let mut cells = Cells {
                row,
                counts: &mut self.counts,
            };
            cells.word(&mut rows.error_type, failure.error_type)?;
            if failure.error_type.is_some() || http_status.is_some() {
                rows.timed_out.set(row, failure.timed_out);
                rows.rate_limited.set(row, failure.rate_limited);
            }
        }
        Ok(())
    }

    /// Provider, models and deployment of any span; tokens and cost of calls alone.
    fn set_models(&mut self, row: usize, role: Role, error: bool, slots: &Slots<'_>) -> Result<(), ReadError> {
        let rows = &mut self.spans;
        let mut cells = Cells {
            row,
            counts: &mut self.counts,
        };
        let in_hidden = || {
            slots
                .text(Slot::HiddenParams)
                .and_then(|json| resolve::json_text(json, "model_id"))
        };
        cells.word(&mut rows.deployment, slots.text(Slot::Deployment).or_else(in_hidden))?;
        let provider = resolve::provider(slots);
        let (request, response) = resolve::models(slots, error);
        let names = Names {
            provider: cells.coded(&mut rows.provider, provider)?,
            request: cells.coded(&mut rows.request_model, request)?,
            response: cells.coded(&mut rows.response_model, response)?,
        };
        if role != Role::Call {
            return Ok(());
        }
        let mut tokens = |slot, column: &mut Amounts<Int64Type>| -> Option<i64> {
            let number = token_count(slots, slot)?;
            let known = number.ok();
            cells.count(column, number);
            known
        };
        let usage = Usage {
            prompt: tokens(Slot::PromptTokens, &mut rows.prompt_tokens),
            completion: tokens(Slot::CompletionTokens, &mut rows.completion_tokens),
            cache_read: tokens(Slot::CacheReadTokens, &mut rows.cache_read_tokens),
            cache_write: tokens(Slot::CacheWriteTokens, &mut rows.cache_write_tokens),
            reasoning: tokens(Slot::ReasoningTokens, &mut rows.reasoning_tokens),
        };
        if let (Some(Ok(total)), Some(prompt), Some(completion)) = (
            slots.get(Slot::TotalTokens).map(|total| total.count()),
            usage.prompt,
            usage.completion,
        ) {
            cells.counts.totals_contradicted += u64::from(prompt.checked_add(completion) != Some(total));
        }
        if let Some(cost) = emitter_cost(slots) {
            // nothing used and nothing paid is what a client says that lost the usage
            let is_lost = matches!(cost, Ok(0)) && usage.prompt.is_none() && usage.completion.is_none();
            match cost {
                Ok(nano) if !is_lost => rows.emitter_cost_usd.set(row, i128::from(nano)),
                Ok(_) => {}
                Err(why) => cells.counts.note(why),
            }
        }
        let is_used = usage.prompt.is_some() || usage.completion.is_some();
        // an attempt that failed before any token was used is charged by nobody
        if !is_used && error {
            return Ok(());
        }
        let called = Called {
            provider,
            request,
            response,
            really: slots.text(Slot::PricedModel),
        };
        let price = self.priced.price(&self.config.prices, names, &called);
        if price.is_none() && is_used {
            self.counts.unpriced.count(called.really.or(response).or(request));
        }
        if let Some(nano) = price.and_then(|price| price.cost(&usage)) {
            rows.cost_usd.set(row, i128::from(nano));
            rows.price_version.set(row, self.config.prices.version().as_bytes())?;
        }
        Ok(())
    }

    fn set_sampling(&mut self, row: usize, trace_state: &[u8]) {
        match stamps::sampling(trace_state) {
            Some(Ok(probability)) => self.spans.sampling.set(row, probability),
            Some(Err(_)) => self.counts.sampling_unreadable += 1,
            None => {}
        }
    }

    fn set_ttft(&mut self, row: usize, start: i64, slots: &Slots<'_>) {
        let Some(value) = slots.get(Slot::Ttft) else {
            return;
        };
        let rank = slots.rank(Slot::Ttft);
        #[allow(clippy::cast_precision_loss)]
        let since_start = |time: i64| {
            let after = time.checked_sub(start).ok_or(BadNumber::OutOfRange)?;
            if after < 0 {
                Err(BadNumber::Negative)
            } else {
                Ok(after as f64 / 1e6)
            }
        };
        let ms = if rank == TTFT_OF_EVENT {
            match value {
                Value::Int(time) => since_start(time),
                _ => Err(BadNumber::Unreadable),
            }
        } else if rank == TTFT_OF_LANGFUSE {
            let time = value.text().and_then(|text| rfc3339(std::str::from_utf8(text).ok()?));
            time.ok_or(BadNumber::Unreadable).and_then(since_start)
        } else if rank == TTFT_IN_MS || rank >= CONFIGURED {
            value.amount()
        } else {
            value.amount().map(|seconds| seconds * 1e3)
        };
        Cells {
            row,
            counts: &mut self.counts,
        }
        .double(&mut self.spans.ttft_ms, ms);
    }
}

fn rfc3339(text: &str) -> Option<i64> {
    arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text.trim().trim_matches('"')).ok()
}

fn share(value: &Value<'_>) -> Number<f64> {
    let share = value.amount()?;
    if share <= 1.0 {
        Ok(share)
    } else {
        Err(BadNumber::OutOfRange)
    }
}

/// The set of slots that fill one column as they are.
const PLAIN: u64 = {
    let mut set = u64::MAX >> (64 - SLOTS);
    let special = [
        Slot::Role,
        Slot::Provider,
        Slot::RequestModel,
        Slot::ResponseModel,
        Slot::PromptTokens,
        Slot::CompletionTokens,
        Slot::CacheReadTokens,
        Slot::CacheWriteTokens,
        Slot::ReasoningTokens,
        Slot::EmitterCost,
        Slot::ErrorType,
        Slot::HttpStatus,
        Slot::Deployment,
        Slot::Ttft,
        Slot::Input,
        Slot::Output,
        Slot::GenAiRequestModel,
        Slot::LlmModelName,
        Slot::PricedModel,
        Slot::AiOperation,
        Slot::TraceAiKind,
        Slot::ErrorText,
        Slot::Parameters,
        Slot::HiddenParams,
        Slot::Metadata,
        Slot::TotalTokens,
        Slot::FlagKey,
        Slot::FlagVariant,
    ];
    let mut i = 0;
    while i < special.len() {
        set &= !(1 << special[i] as u64);
        i += 1;
    }
    set
};
