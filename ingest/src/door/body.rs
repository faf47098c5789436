//! Reading bodies: charged before they are buffered, within a pause and a total time, copied once at most.

use super::budget::{Budget, Charge};
use super::refused::Refused;
use super::{Door, DoorConfig, Export, KIB, inflate, json};
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use inflate::Coding;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Length of the gRPC message prefix: one flag byte and the length, big endian.
const PREFIX_BYTES: usize = 5;
/// First charge of a body of unknown length, bytes.
const UNKNOWN_BYTES: usize = 16 * KIB;
/// First charge of a longer body, bytes: what is announced and does not come must not keep others out. Up to here a body that
/// is let in is not refused half way.
const ANNOUNCED_BYTES: usize = super::MIB;
/// How much of a refused HTTP/1 body is read and thrown away, so that the client sees the answer, bytes and ms.
const LINGER_BYTES_MAX: usize = 128 * super::MIB;
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

/// Next piece of the body, or `None` at its end.
async fn piece(body: &mut Incoming, config: &DoorConfig) -> Result<Option<Bytes>, Refused> {
    loop {
        let next = timeout(Duration::from_millis(config.body_pause_ms_max), body.frame());
        match next.await.map_err(|_| Refused::Slow)? {
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
    first: Bytes,
    joined: Vec<u8>,
}

impl Pieces {
    /// Refuses what has no room now, and charges for the beginning.
    fn new(announced: Option<usize>, budget: &Arc<Budget>) -> Result<Self, Refused> {
        let charged = announced.map_or(UNKNOWN_BYTES, |n| n.min(ANNOUNCED_BYTES));
        if let Some(all) = announced.filter(|n| *n > charged) {
            drop(budget.charge(all)?);
        }
        Ok(Self {
            announced,
            charged,
            charge: budget.charge(charged)?,
            first: Bytes::new(),
            joined: Vec::new(),
        })
    }

    fn len(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    /// Charges for a piece, in doubling steps, and keeps it.
    fn push(&mut self, piece: Bytes) -> Result<(), Refused> {
        let len = self.len() + piece.len();
        if len > self.charged {
            let doubled = self.announced.unwrap_or(usize::MAX).min(2 * self.charged);
            let more = len.max(doubled) - self.charged;
            self.charge.grow(more)?;
            self.charged += more;
        }
        if self.len() == 0 {
            self.first = piece;
            return Ok(());
        }
        // Exactly what is paid for: a queue of bodies with spare room would be half as large again.
        self.joined.reserve_exact(self.charged.max(len) - self.joined.len());
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
        self.charge.shrink_to(bytes.len());
        Raw {
            bytes,
            charge: self.charge,
        }
    }
}

/// Reads a whole HTTP body.
pub(crate) async fn whole(body: &mut Incoming, config: &DoorConfig, budget: &Arc<Budget>) -> Result<Raw, Refused> {
    let limit_bytes = budget.body_bytes_max(config.body_bytes_max);
    let announced = body
        .size_hint()
        .exact()
        .map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    if announced.is_some_and(|n| n > limit_bytes) {
        return Err(Refused::TooLarge { limit_bytes });
    }
    let mut pieces = Pieces::new(announced, budget)?;
    let read = async {
        while let Some(bytes) = piece(body, config).await? {
            if pieces.len() + bytes.len() > limit_bytes {
                return Err(Refused::TooLarge { limit_bytes });
            }
            pieces.push(bytes)?;
        }
        Ok(pieces.finish())
    };
    within(config, read).await
}

/// Reads the one message of a unary gRPC call; the prefix says how long it is.
pub(crate) async fn framed(body: &mut Incoming, config: &DoorConfig, budget: &Arc<Budget>) -> Result<Framed, Refused> {
    within(config, async {
        let mut prefix = [0_u8; PREFIX_BYTES];
        let mut have = 0;
        let mut rest = Bytes::new();
        while have < PREFIX_BYTES {
            rest = piece(body, config).await?.ok_or_else(short)?;
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
        let limit_bytes = budget.body_bytes_max(config.body_bytes_max);
        if expected > limit_bytes {
            return Err(Refused::TooLarge { limit_bytes });
        }
        let mut pieces = Pieces::new(Some(expected), budget)?;
        let mut next = Some(rest);
        while let Some(bytes) = next {
            if pieces.len() + bytes.len() > expected {
                return Err(Refused::Malformed("an export call carries one message".to_owned()));
            }
            pieces.push(bytes)?;
            next = piece(body, config).await?;
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

/// Reads on without keeping, so that an HTTP/1 client that is still sending gets to the answer.
pub(crate) async fn linger(body: &mut Incoming) {
    let mut left = LINGER_BYTES_MAX;
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

impl Door {
    /// Turns a body into the protobuf message it stands for; CPU work leaves the async threads.
    pub(crate) async fn unfold(&self, raw: Raw, coding: Coding, json: Option<Export>) -> Result<Bytes, Refused> {
        if coding == Coding::Identity && json.is_none() {
            return Ok(raw.charge.carry(raw.bytes));
        }
        let limit_bytes = self.budget.body_bytes_max(self.config.body_bytes_max);
        let (done, message) = tokio::sync::oneshot::channel();
        self.inflaters.spawn(move || {
            let _ = done.send(unfold(raw, coding, json, limit_bytes));
        });
        message
            .await
            .unwrap_or_else(|_| Err(Refused::Malformed("reading it failed inside".to_owned())))
    }
}

fn unfold(raw: Raw, coding: Coding, json: Option<Export>, limit_bytes: usize) -> Result<Bytes, Refused> {
    let Raw { mut bytes, mut charge } = raw;
    if coding != Coding::Identity {
        let plain = inflate::inflate(coding, &bytes, limit_bytes, &mut charge)?;
        bytes = Bytes::from(plain);
        charge.shrink_to(bytes.len());
    }
    let Some(export) = json else {
        return Ok(charge.carry(bytes));
    };
    // Protobuf is never longer than the JSON it stands for.
    charge.grow(bytes.len())?;
    let message = json::transcode(export, &bytes).map_err(|error| Refused::Malformed(error.to_string()))?;
    charge.shrink_to(message.capacity());
    Ok(charge.carry(message))
}
