//! Freezes: what keeps the desk from promoting, until when, and why.

use super::Docket;
use crate::{desk::DeskError, ledger::Freeze};
use proto::Nanos;

impl Docket {
    pub(super) fn freeze(&mut self, freeze: Freeze) -> Result<(), DeskError> {
        let mut freezes = self.freezes.clone();
        freezes.retain(|f| f.route != freeze.route || f.since != freeze.since);
        freezes.push(freeze);
        self.put_freezes(freezes)
    }

    pub(super) fn thaw(&mut self, route: Option<&str>) -> Result<bool, DeskError> {
        let mut freezes = self.freezes.clone();
        freezes.retain(|f| f.route.as_deref() != route);
        let any = freezes.len() != self.freezes.len();
        self.put_freezes(freezes)?;
        Ok(any)
    }

    fn put_freezes(&mut self, mut freezes: Vec<Freeze>) -> Result<(), DeskError> {
        let now = (self.clock)();
        freezes.retain(|f| f.until.is_none_or(|until| now < until));
        self.ledger.put_freezes(&freezes)?;
        self.freezes = freezes;
        self.judged = None;
        self.publish_view();
        Ok(())
    }

    /// Why nothing may be promoted on a route now.
    pub(super) fn frozen(&self, route: &str, now: Nanos) -> Option<String> {
        let freeze = self.freezes.iter().find(|f| f.holds(route, now))?;
        let until = match freeze.until {
            Some(until) => format!(" until {}", until.rfc3339()),
            None => String::new(),
        };
        Some(format!("{} froze promotions{until}: {}", freeze.actor, freeze.reason))
    }
}
