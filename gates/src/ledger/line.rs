//! The line of notices on a route: what a new one makes void, and who gets none.

use super::{DeliveryRow, DeliveryState, LedgerError, get_delivery, write};
use proto::{Nanos, decision::Action};
use redb::ReadableTable;

/// Puts a new notice in line, and takes out those it makes void. A receiver that is gone gets none.
pub(super) fn enqueue(
    new: &mut DeliveryRow,
    calls_back: bool,
    gone_at: Option<i64>,
    pending: &mut redb::Table<'_, (&'static str, i64), &'static str>,
    deliveries: &mut redb::Table<'_, &'static str, &'static [u8]>,
) -> Result<(), LedgerError> {
    let route = new.route.clone();
    if let Some(at) = gone_at {
        new.state = DeliveryState::Dead;
        new.last_status = Some(410);
        new.last_error = Some(format!(
            "the receiver answered 410 at {}: replay to send again",
            Nanos(at).rfc3339()
        ));
    } else {
        let older: Vec<String> = pending
            .range((route.as_str(), i64::MIN)..(route.as_str(), i64::MAX))?
            .map(|row| row.map(|(_, id)| id.value().to_owned()))
            .collect::<Result<_, _>>()?;
        for id in older {
            let Some(mut old) = get_delivery(deliveries, &id)? else {
                continue;
            };
            if supersedes(new.action, old.action)
                || calls_back && matches!(old.action, Action::Advance | Action::Promote)
            {
                old.state = DeliveryState::Superseded;
                pending.remove((route.as_str(), old.decision_seq))?;
                deliveries.insert(id.as_str(), write(&old).as_slice())?;
            }
        }
        pending.insert((route.as_str(), new.decision_seq), new.id.as_str())?;
    }
    deliveries.insert(new.id.as_str(), write(new).as_slice())?;
    Ok(())
}

/// Whether a notice of `newer` makes an undelivered one of `older` void. Movements of the whole route do; a fallback
/// moves one cohort only, so it leaves others standing; what moves nothing (hold, settle, escalate) waits its turn, lest a
/// rollback be lost behind it. A person's hold takes out what sends green more, too ([`super::Entry::calls_back`]).
fn supersedes(newer: Action, older: Action) -> bool {
    match newer {
        Action::Rollback => true,
        Action::Promote | Action::Advance => older != Action::Fallback,
        Action::Fallback => matches!(older, Action::Hold | Action::Escalate),
        Action::Hold | Action::Settle | Action::Escalate => false,
    }
}
