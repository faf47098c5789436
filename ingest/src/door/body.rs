//! Reading bodies: charged before they are buffered, within a pause and a total time, copied once at most.

use super::budget::{Budget, Charge};
use super::refused::Refused;
use super::unfold::Folded;
use super::{DoorConfig, KIB};
use bytes::{Buf, Bytes};
use http::Version;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Length of the gRPC message prefix: one flag byte and the length, big endian.
const PREFIX_BYTES: usize = 5;
/// Smallest charge of a body that comes in several pieces, bytes.
const PIECES_BYTES_MIN: usize = 4 * KIB;
/// Once this part of what is announced has come, the rest is charged too: what is refused at its end was sent for nothing,
/// and what is only announced must not keep others out.
const SENT_PART: usize = 4;
/// Most that is charged before it has come, bytes. Up to here a body is refused in its first part or not at all.
const ANNOUNCED_BYTES: usize = super::MIB;
/// A body that is not whole within this time is slow, ms.
const SLOW_MS: u64 = 1_000;
/// How much of a refused body is read and thrown away before the answer, bytes and ms. A client of HTTP/1 sees no answer
/// while it sends. One of HTTP/2 does; but streams that end by an answer while they still bring something are remembered
/// only for so many a second, and a connection on which too much comes for those forgotten is closed with all its calls.
const LINGER_BYTES_MAX: usize = 128 * super::MIB;
const LINGER_STREAM_BYTES_MAX: usize = 4 * super::MIB;
const LINGER_MS_MAX: u64 = 5_000;

/// A body as it came, and the charge for it.
pub(crate) struct Raw {
    pub(crate) bytes: Bytes,
    pub(crate) charge: Charge,
}

/// One gRPC message as it came.
pub(crate) struct Framed {
    pub(crate) compressed: bool,
    pub(crate) raw: Raw,
}

/// Next piece of the body, or `None` at its end. Dropping it loses nothing.
async fn some_data(body: &mut Incoming) -> Result<Option<Bytes>, Refused> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(error)) => {
                return Err(Refused::Malformed(format!("the body broke off: {error}")));
            }
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data()
                    && !bytes.is_empty()
                {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// Pieces of one body, each charged before it is kept: the only one is kept as it is, several are copied together.
struct Pieces {
    /// What the body is announced to have, if it is.
    announced: Option<usize>,
    /// What is paid for, bytes.
    charged: usize,
    charge: Charge,
    /// When the body is slow, unless it is whole; `None` once it is.
    slow_at: Option<Instant>,
    first: Bytes,
    joined: Vec<u8>,
}

impl Pieces {
    /// Charges for the request alone. What comes is charged when it comes.
    fn new(budget: &Arc<Budget>) -> Result<Self, Refused> {
        Ok(Self {
            announced: None,
            charged: 0,
            charge: budget.charge()?,
            slow_at: Some(Instant::now() + Duration::from_millis(SLOW_MS)),
            first: Bytes::new(),
            joined: Vec::new(),
        })
    }

    /// Refuses what has no room now, with what it unfolds to.
    fn announce(&mut self, bytes: usize, folded: Folded) -> Result<(), Refused> {
        self.announced = Some(bytes);
        self.charge.has_room(folded.held_bytes(bytes))
    }

    fn len(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    /// Next piece, or `None` at the end of the body. It must come within a pause.
    async fn next(&mut self, body: &mut Incoming, config: &DoorConfig) -> Result<Option<Bytes>, Refused> {
        let data = async {
            if let Some(at) = self.slow_at {
                if let Ok(data) = timeout_at(at, some_data(body)).await {
                    return data;
                }
                self.turn_slow();
            }
            some_data(body).await
        };
        timeout(Duration::from_millis(config.body_pause_ms_max), data)
            .await
            .map_err(|_| Refused::Slow)?
    }

    fn turn_slow(&mut self) {
        self.slow_at = None;
        self.joined.shrink_to_fit();
        self.charged = self.len();
        self.charge.turn_slow(self.charged);
    }

    /// Charges for a piece and keeps it. Charges grow in doubling steps; once the body has shown that it comes, by all that
    /// is announced.
    fn push(&mut self, piece: Bytes) -> Result<(), Refused> {
        let is_first = self.len() == 0;
        let len = self.len() + piece.len();
        let announced = self.announced.unwrap_or(usize::MAX);
        let ahead = match self.announced.map(|all| all.min(ANNOUNCED_BYTES)) {
            Some(all) if self.slow_at.is_some() && len >= all / SENT_PART && len <= all => all,
            _ if is_first || len <= self.charged => 0,
            _ => announced.min(PIECES_BYTES_MIN.max(2 * self.charged)),
        };
        let charged = self.charged.max(len).max(ahead);
        if charged > self.charged {
            self.charge.grow(charged - self.charged)?;
            self.charged = charged;
        }
        if is_first {
            self.first = piece;
            return Ok(());
        }
        // Exactly what is paid for: a queue of bodies with spare room would be half as large again.
        self.joined.reserve_exact(self.charged - self.joined.len());
        self.joined.extend_from_slice(&std::mem::take(&mut self.first));
        self.joined.extend_from_slice(&piece);
        Ok(())
    }

    fn finish(mut self) -> Raw {
        let bytes = if self.joined.is_empty() {
            self.first
        } else {
            self.joined.shrink_to_fit();
            Bytes::from(self.joined)
        };
        self.charge.finish(bytes.len());
        Raw {
            bytes,
            charge: self.charge,
        }
    }
}

/// Reads a whole HTTP body.
pub(crate) async fn whole(
    body: &mut Incoming,
    config: &DoorConfig,
    budget: &Arc<Budget>,
    folded: Folded,
) -> Result<Raw, Refused> {
    let limit_bytes = folded.limit_bytes;
    let announced = body
        .size_hint()
        .exact()
        .map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    if announced.is_some_and(|n| n > limit_bytes) {
        return Err(Refused::TooLarge { limit_bytes });
    }
    let mut pieces = Pieces::new(budget)?;
    if let Some(bytes) = announced {
        pieces.announce(bytes, folded)?;
    }
    let read = async {
        while let Some(bytes) = pieces.next(body, config).await? {
            if pieces.len() + bytes.len() > limit_bytes {
                return Err(Refused::TooLarge { limit_bytes });
            }
            pieces.push(bytes)?;
        }
        Ok(pieces.finish())
    };
    within(config, read).await
}

/// Reads the one message of a unary gRPC call; the prefix says how long it is, and whether it is `folded`.
pub(crate) async fn framed(
    body: &mut Incoming,
    config: &DoorConfig,
    budget: &Arc<Budget>,
    folded: Folded,
) -> Result<Framed, Refused> {
    let mut pieces = Pieces::new(budget)?;
    within(config, async {
        let mut prefix = [0_u8; PREFIX_BYTES];
        let mut have = 0;
        let mut rest = Bytes::new();
        while have < PREFIX_BYTES {
            rest = pieces.next(body, config).await?.ok_or_else(short)?;
            let n = rest.len().min(PREFIX_BYTES - have);
            rest.copy_to_slice(&mut prefix[have..have + n]);
            have += n;
        }
        let [flag, length @ ..] = prefix;
        let expected = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if flag > 1 {
            return Err(Refused::Malformed(format!(
                "the gRPC message flag is {flag}, not 0 or 1"
            )));
        }
        let limit_bytes = folded.limit_bytes;
        if expected > limit_bytes {
            return Err(Refused::TooLarge { limit_bytes });
        }
        let folded = if flag == 1 { folded } else { Folded::plain(limit_bytes) };
        pieces.announce(expected, folded)?;
        let mut next = Some(rest);
        while let Some(bytes) = next {
            if pieces.len() + bytes.len() > expected {
                return Err(Refused::Malformed("an export call carries one message".to_owned()));
            }
            pieces.push(bytes)?;
            next = pieces.next(body, config).await?;
        }
        if pieces.len() < expected {
            return Err(short());
        }
        Ok(Framed {
            compressed: flag == 1,
            raw: pieces.finish(),
        })
    })
    .await
}

fn short() -> Refused {
    Refused::Malformed("the gRPC message is shorter than its prefix says".to_owned())
}

async fn within<T>(config: &DoorConfig, read: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
    timeout(Duration::from_millis(config.body_ms_max), read)
        .await
        .map_err(|_| Refused::Slow)?
}

/// Reads on without keeping, so that a client that is still sending gets to the answer of a refusal. Who sends too slowly
/// gets no more time.
pub(crate) async fn linger(body: &mut Incoming, version: Version, refused: &Refused) {
    if *refused == Refused::Slow {
        return;
    }
    let mut left = if version < Version::HTTP_2 {
        LINGER_BYTES_MAX
    } else {
        LINGER_STREAM_BYTES_MAX
    };
    let discard = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else {
                break;
            };
            left = rest;
        }
    };
    let _ = timeout(Duration::from_millis(LINGER_MS_MAX), discard).await;
}

#[cfg(test)]
mod tests {
    use super::super::budget::REQUEST_BYTES;
    use super::super::inflate::Coding;
    use super::super::{Export, MIB};
    use super::*;

    #[test]
    fn a_body_is_charged_for_what_comes_then_for_all_of_it_and_a_slow_one_for_what_came() {
        let budget = Arc::new(Budget::new(8 * MIB));
        let used = |bytes: usize| assert_eq!(budget.used(), bytes + REQUEST_BYTES);
        let mut pieces = Pieces::new(&budget).unwrap();
        pieces.announce(400 * KIB, Folded::plain(MIB)).unwrap();
        used(0);
        pieces.push(Bytes::from_static(&[1; 9])).unwrap();
        used(9);
        pieces.push(Bytes::from_static(&[1; 1])).unwrap();
        used(PIECES_BYTES_MIN);
        pieces.push(Bytes::from(vec![1; 100 * KIB])).unwrap();
        used(400 * KIB);
        pieces.turn_slow();
        used(10 + 100 * KIB);
        pieces.push(Bytes::from_static(&[1; 1])).unwrap();
        used(2 * (10 + 100 * KIB));
        pieces.push(Bytes::from(vec![1; 300 * KIB - 11])).unwrap();
        used(400 * KIB);
        let raw = pieces.finish();
        assert_eq!(raw.bytes, vec![1; 400 * KIB]);
        used(400 * KIB);
        drop(raw);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_long_body_is_charged_in_doubling_steps_beyond_what_announcements_are_worth() {
        let budget = Arc::new(Budget::new(64 * MIB));
        let mut pieces = Pieces::new(&budget).unwrap();
        pieces.announce(8 * MIB, Folded::plain(16 * MIB)).unwrap();
        let mut steps = Vec::new();
        for _ in 0..8 * MIB / (32 * KIB) {
            pieces.push(Bytes::from(vec![1; 32 * KIB])).unwrap();
            let charged = budget.used() - REQUEST_BYTES;
            if steps.last() != Some(&charged) {
                steps.push(charged);
            }
        }
        let kib: Vec<usize> = steps.iter().map(|bytes| bytes / KIB).collect();
        assert_eq!(kib, [32, 64, 128, 256, 1_024, 2_048, 4_096, 8_192]);
    }

    #[test]
    fn what_has_no_room_is_refused_before_it_comes() {
        let budget = Arc::new(Budget::new(MIB));
        let announced =
            |bytes: usize, folded: Folded| Pieces::new(&budget).and_then(|mut it| it.announce(bytes, folded));
        let plain = Folded::plain(MIB);
        let _other = Pieces::new(&budget).unwrap();
        assert!(announced(MIB, plain).is_err());
        let zipped = Folded {
            coding: Coding::Gzip,
            ..plain
        };
        let json = Folded {
            json: Some(Export::Traces),
            ..plain
        };
        for folded in [zipped, json] {
            assert!(announced(600 * KIB, plain).is_ok());
            assert!(announced(600 * KIB, folded).is_err(), "{folded:?}");
            assert!(announced(100 * KIB, folded).is_ok(), "{folded:?}");
        }
    }
}
