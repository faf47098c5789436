//! Decompression that stops at a bound: memory is charged before it grows, so a bomb costs what it was allowed to.

use super::budget::Charge;
use super::refused::Refused;
use super::{KIB, MIB};
use std::io::Read;

/// Largest zstd window, log2 of bytes (8 MiB, what RFC 8878 asks decoders to support).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Growth of the output, bytes: it doubles at first. While it grows both the old and the new may be there.
const STEP_BYTES_MIN: usize = 16 * KIB;
const STEP_BYTES_MAX: usize = 16 * MIB;

/// Coding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
}

impl Coding {
    /// Reads `content-encoding` or `grpc-encoding`.
    pub(crate) fn named(name: &str) -> Result<Self, Refused> {
        match name.trim() {
            "" => Ok(Self::Identity),
            word if word.eq_ignore_ascii_case("identity") => Ok(Self::Identity),
            word if word.eq_ignore_ascii_case("gzip") || word.eq_ignore_ascii_case("x-gzip") => Ok(Self::Gzip),
            word if word.eq_ignore_ascii_case("deflate") => Ok(Self::Deflate),
            word if word.eq_ignore_ascii_case("zstd") => Ok(Self::Zstd),
            word => Err(Refused::Encoding(word.chars().take(64).collect())),
        }
    }
}

/// Decompresses `body`; blocking, for the inflate threads.
///
/// # Errors
/// Malformed, too large, or busy when the budget has no room for what comes out.
pub(crate) fn inflate(
    coding: Coding,
    body: &[u8],
    limit_bytes: usize,
    charge: &mut Charge,
) -> Result<Vec<u8>, Refused> {
    let held = body.len();
    match coding {
        Coding::Identity => drain(body, held, limit_bytes, charge),
        Coding::Gzip => drain(flate2::bufread::MultiGzDecoder::new(body), held, limit_bytes, charge),
        Coding::Deflate => drain(flate2::bufread::ZlibDecoder::new(body), held, limit_bytes, charge),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
            drain(decoder, held, limit_bytes, charge)
        }
    }
}

fn broken(error: std::io::Error) -> Refused {
    Refused::Malformed(format!("the body cannot be decompressed: {error}"))
}

/// Reads to the end, while the `held` bytes that it is read from are there too.
fn drain(mut from: impl Read, held: usize, limit_bytes: usize, charge: &mut Charge) -> Result<Vec<u8>, Refused> {
    let mut out = Vec::new();
    let mut len = 0;
    while len < limit_bytes {
        if len == out.len() {
            let step = len.clamp(STEP_BYTES_MIN, STEP_BYTES_MAX).min(limit_bytes - len);
            charge.grow_to(held + len + step)?;
            out.reserve_exact(step);
            out.resize(len + step, 0);
        }
        match some(&mut from, &mut out[len..])? {
            0 => {
                out.truncate(len);
                return Ok(out);
            }
            n => len += n,
        }
    }
    // Whether anything follows costs one byte.
    match some(&mut from, &mut [0])? {
        0 => Ok(out),
        _ => Err(Refused::TooLarge { limit_bytes }),
    }
}

fn some(from: &mut impl Read, out: &mut [u8]) -> Result<usize, Refused> {
    loop {
        match from.read(out) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read.map_err(broken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::{Budget, REQUEST_BYTES};
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_comes_out_holds_no_more_than_may_come_out() {
        for limit in [0, 1, 100, 3 * MIB + 1, 40 * MIB] {
            let budget = Arc::new(Budget::new(limit + REQUEST_BYTES + 16 * KIB));
            let inflated = |bytes: usize| {
                let packed = zstd::encode_all(&vec![7; bytes][..], 1).unwrap();
                inflate(Coding::Zstd, &packed, limit, &mut budget.charge().unwrap())
            };
            let most = inflated(limit).unwrap();
            assert_eq!((most.len(), most.capacity()), (limit, limit));
            for more in [limit + 1, 2 * limit + STEP_BYTES_MIN] {
                assert_eq!(inflated(more), Err(Refused::TooLarge { limit_bytes: limit }));
            }
        }
    }
}
