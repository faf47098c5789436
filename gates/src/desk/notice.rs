//! From a draft to what is written and sent: id, number, evidence, delivery, notice, and what the route should be on.

use super::{
    DeskConfig, Provenance,
    evidence::{self, Taken},
    reading::Reading,
    view,
};
use crate::{
    ledger::{Actor, DecisionRow, DeliveryRow, DeliveryState, Entry, Place, ReleaseRow},
    life::{DecisionDraft, ReleaseState, named},
    webhook,
};
use proto::{
    Color,
    decision::{Action, Desired, Notice, Side, Verdict},
};
use ulid::Ulid;

/// Gives a draft its id, number, evidence and notice.
pub(super) fn entry(
    config: &DeskConfig,
    row: &mut ReleaseRow,
    reading: Option<&Reading>,
    taken: Taken<'_>,
    provenance: &Provenance,
    at: usize,
    place: &Place,
) -> Entry {
    let (draft, now) = (&taken.drafts[at], taken.now);
    let ulid = Ulid::from_parts(u64::try_from(now.unix_ms()).unwrap_or(0), rand::random());
    let id = format!("dec_{ulid}");
    row.state.last_decision = Some((id.clone(), place.seq));
    if let Some(effect) = &mut row.state.effect
        && effect.decision_id.is_none()
        && effect.action == draft.action
    {
        effect.decision_id = Some(id.clone());
    }
    let decision = DecisionRow {
        id: id.clone(),
        seq: place.seq,
        ordinal: place.ordinal,
        release: row.spec.id.clone(),
        route: row.spec.route.clone(),
        action: draft.action,
        cohort: draft.cohort.clone(),
        reason: draft.reason.clone(),
        actor: draft.actor.clone(),
        culprits: draft.culprits.iter().map(|p| named(std::slice::from_ref(p))).collect(),
        green_ppm: draft.green_ppm,
        rules_hash: row.rules_hash.clone(),
        decided_at: now,
        notified: draft.notified,
        evidence_hash: String::new(),
        previous_hash: place.previous_hash.clone(),
        before_expired: None,
    };
    let evidence = evidence::bundle(row, &decision, reading, taken, provenance);
    let delivery = row.spec.webhook.as_ref().filter(|_| draft.notified).map(|webhook| {
        let notice = notice(config, row, reading, draft, &decision);
        DeliveryRow {
            id: format!("msg_{ulid}"),
            decision_id: id,
            decision_seq: place.seq,
            action: draft.action,
            release: row.spec.id.clone(),
            route: row.spec.route.clone(),
            webhook: webhook.clone(),
            body: webhook::body(&notice),
            state: DeliveryState::Pending,
            created_at: now,
            attempts: 0,
            next_attempt_at: now,
            last_status: None,
            last_error: None,
            delivered_at: None,
        }
    });
    let calls_back = draft.action == Action::Hold && row.state.is_called_back();
    let moves = matches!(
        draft.action,
        Action::Promote | Action::Advance | Action::Rollback | Action::Fallback
    ) || calls_back;
    let desired = (draft.notified && moves).then(|| desired(row, draft, place.seq));
    tracing::info!(
        release = decision.release,
        action = draft.action.as_str(),
        seq = place.seq,
        by = match &draft.actor {
            Actor::Engine => "tracegate",
            Actor::Person(name) => name,
        },
        reason = draft.reason,
        "decided"
    );
    Entry {
        decision,
        evidence,
        delivery,
        desired,
        calls_back,
    }
}

fn desired(row: &ReleaseRow, draft: &DecisionDraft, seq: i64) -> Desired {
    let color = row.state.active_color();
    Desired {
        route: row.spec.route.clone(),
        release: row.spec.id.clone(),
        decision_seq: seq,
        color,
        weights: ReleaseState::weights(draft.green_ppm),
        manifest: side(row, color).manifest,
        cohorts_on_blue: cohorts_on_blue(row),
    }
}

fn cohorts_on_blue(row: &ReleaseRow) -> Vec<String> {
    let moved = row.state.fallen.iter().filter(|f| f.moved);
    moved.map(|f| f.cohort.clone()).collect()
}

fn side(row: &ReleaseRow, color: Color) -> Side {
    let manifest = match color {
        Color::Green => &row.spec.green,
        _ => &row.spec.blue,
    };
    Side {
        color,
        version: manifest.version.clone(),
        manifest: manifest.clone(),
    }
}

fn notice(
    config: &DeskConfig,
    row: &ReleaseRow,
    reading: Option<&Reading>,
    draft: &DecisionDraft,
    decision: &DecisionRow,
) -> Notice {
    let active = row.state.active_color();
    let (from, to) = match draft.action {
        Action::Promote | Action::Advance => (Color::Blue, Color::Green),
        Action::Rollback | Action::Fallback => (Color::Green, Color::Blue),
        Action::Hold | Action::Settle | Action::Escalate => (active, active),
    };
    let mut gates = reading.map_or_else(Vec::new, |r| view::gates(&r.judgement.reports));
    // what does not fit is cut from the end, so what failed comes first
    gates.sort_by_key(|g| g.verdict != Verdict::Fail);
    Notice {
        decision_id: decision.id.clone(),
        decision_seq: decision.seq,
        release: decision.release.clone(),
        route: decision.route.clone(),
        action: draft.action,
        cohort: draft.cohort.clone(),
        weights: ReleaseState::weights(draft.green_ppm),
        cohorts_on_blue: cohorts_on_blue(row),
        from: side(row, from),
        to: side(row, to),
        gates,
        rules_hash: row.rules_hash.clone(),
        evidence_url: config.address(&["api", "v1", "decisions", &decision.id]),
        desired_url: config.address(&["api", "v1", "routes", &decision.route, "desired"]),
        decided_at: decision.decided_at.rfc3339(),
    }
}
