//! The frame around everything the store writes itself: magic, length, CRC32C, payload.
//!
//! ```text
//! | magic u32 | payload length u32 | crc32c u32 over length and payload | payload |      little endian
//! ```

/// Bytes before the payload.
pub(crate) const HEADER: usize = 12;
/// A longer payload is not written, and a header that claims one is not believed: 1 GiB.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1 << 30;

/// Starts a frame in `out`: the payload is pushed after it, then [`finish`] is called with what this returned.
pub(crate) fn begin(out: &mut Vec<u8>) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; HEADER]);
    at
}

/// Fills in the header of the frame begun at `at`. False if the payload is over the limit.
pub(crate) fn finish(out: &mut [u8], at: usize, magic: [u8; 4]) -> bool {
    let payload = out.len() - at - HEADER;
    if payload > PAYLOAD_BYTES_MAX {
        return false;
    }
    out[at..at + 4].copy_from_slice(&magic);
    out[at + 4..at + 8].copy_from_slice(&(payload as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out[at + 4..at + 8]), &out[at + HEADER..]);
    out[at + 8..at + HEADER].copy_from_slice(&crc.to_le_bytes());
    true
}

/// The payload of the whole and unharmed frame that starts `bytes`.
pub(crate) fn open(bytes: &[u8], magic: [u8; 4]) -> Option<&[u8]> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    if header[..4] != magic {
        return None;
    }
    let len = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
    if len > PAYLOAD_BYTES_MAX {
        return None;
    }
    let payload = rest.get(..len)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[4..8]), payload);
    (header[8..] == crc.to_le_bytes()).then_some(payload)
}

/// Reads little-endian fields off the front of a slice.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
}
