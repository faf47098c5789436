//! From a body as it came to the protobuf message it stands for: decompressed, and out of JSON. CPU work, on threads of its
//! own; what waits for them has reserved what it will need, and whose client has left is skipped.

use super::body::Raw;
use super::inflate::{Coding, inflate};
use super::refused::Refused;
use super::{Door, Export, json};
use bytes::Bytes;
use tokio::sync::oneshot;

/// How many times its size a compressed body is expected to come to; what it really comes to is charged as it grows.
const INFLATES_TIMES: usize = 4;

/// How a body is packed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folded {
    pub(crate) coding: Coding,
    /// It is JSON, of this export.
    pub(crate) json: Option<Export>,
    /// What it may come to, bytes.
    pub(crate) limit_bytes: usize,
}

impl Folded {
    /// Not at all.
    pub(crate) const fn plain(limit_bytes: usize) -> Self {
        Self {
            coding: Coding::Identity,
            json: None,
            limit_bytes,
        }
    }

    /// What a body of `bytes` bytes is expected to hold at most while it is unfolded, itself included, bytes.
    pub(crate) fn held_bytes(self, bytes: usize) -> usize {
        let plain = match self.coding {
            Coding::Identity => bytes,
            _ => bytes.saturating_mul(INFLATES_TIMES).min(self.limit_bytes),
        };
        let packed = match self.coding {
            Coding::Identity => 0,
            _ => bytes,
        };
        // Protobuf is never longer than the JSON it stands for.
        let message = if self.json.is_some() { plain } else { 0 };
        packed.saturating_add(plain).saturating_add(message)
    }
}

impl Door {
    /// Turns a body into the protobuf message it stands for.
    pub(crate) async fn unfold(&self, mut raw: Raw, folded: Folded) -> Result<Bytes, Refused> {
        if folded.coding == Coding::Identity && folded.json.is_none() {
            return Ok(raw.charge.carry(raw.bytes));
        }
        raw.charge.grow_to(folded.held_bytes(raw.bytes.len()))?;
        let (done, message) = oneshot::channel();
        self.inflaters.spawn(move || unless_gone(done, || unfold(raw, folded)));
        message
            .await
            .unwrap_or_else(|_| Err(Refused::Malformed("reading it failed inside".to_owned())))
    }
}

/// Does the work, unless nobody waits for it any more.
fn unless_gone<T>(done: oneshot::Sender<T>, work: impl FnOnce() -> T) {
    if !done.is_closed() {
        let _ = done.send(work());
    }
}

fn unfold(raw: Raw, folded: Folded) -> Result<Bytes, Refused> {
    let Raw { mut bytes, mut charge } = raw;
    if folded.coding != Coding::Identity {
        let mut plain = inflate(folded.coding, &bytes, folded.limit_bytes, &mut charge)?;
        // It waits now, and what is paid for is what is held.
        plain.shrink_to_fit();
        bytes = Bytes::from(plain);
    }
    let Some(export) = folded.json else {
        charge.shrink_to(bytes.len());
        return Ok(charge.carry(bytes));
    };
    charge.grow_to(2 * bytes.len())?;
    let message = json::transcode(export, &bytes).map_err(|error| Refused::Malformed(error.to_string()))?;
    charge.shrink_to(message.capacity());
    Ok(charge.carry(message))
}

#[cfg(test)]
mod tests {
    use super::super::budget::{Budget, REQUEST_BYTES};
    use super::super::{KIB, MIB};
    use super::*;
    use std::sync::Arc;

    #[test]
    fn nothing_is_done_for_a_client_that_has_left() {
        let (done, gone) = oneshot::channel();
        drop(gone);
        unless_gone(done, || panic!("it was done"));
        let (done, mut waits) = oneshot::channel();
        unless_gone(done, || 7);
        assert_eq!(waits.try_recv(), Ok(7));
    }

    #[test]
    fn no_body_is_expected_to_hold_more_than_there_is() {
        let of = |coding, json| Folded {
            coding,
            json,
            limit_bytes: 64 * MIB,
        };
        let json = Some(Export::Logs);
        assert_eq!(of(Coding::Identity, None).held_bytes(MIB), MIB);
        assert_eq!(of(Coding::Identity, json).held_bytes(MIB), 2 * MIB);
        assert_eq!(of(Coding::Zstd, None).held_bytes(MIB), 5 * MIB);
        assert_eq!(of(Coding::Zstd, json).held_bytes(MIB), 9 * MIB);
        let most = of(Coding::Gzip, json).held_bytes(64 * MIB);
        assert_eq!(most, 3 * 64 * MIB, "less than the budget of four times the limit");
    }

    #[test]
    fn what_was_reserved_is_given_back() {
        let budget = Arc::new(Budget::new(64 * MIB));
        let json = br#"{"resourceSpans":[]}"#;
        let packed = zstd::encode_all(&json[..], 1).unwrap();
        let folded = Folded {
            coding: Coding::Zstd,
            json: Some(Export::Traces),
            limit_bytes: 16 * MIB,
        };
        let mut charge = budget.charge().unwrap();
        charge.grow_to(40 * KIB).unwrap();
        let bytes = Bytes::from(packed);
        let message = unfold(Raw { bytes, charge }, folded).unwrap();
        assert!(message.is_empty());
        assert!(budget.used() <= REQUEST_BYTES + json.len());
        drop(message);
        assert_eq!(budget.used(), 0);
    }
}
