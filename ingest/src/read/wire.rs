//! A zero-copy cursor over protobuf bytes. It never recurses and never allocates: messages inside are slices.
//!
//! Unknown fields are stepped over, groups of the first days of protobuf among them. Groups that do not end, unknown wire
//! types, field number 0, varints past 64 bits and lengths past the end are [`ReadError`]s: what stands behind them cannot
//! be trusted.

use super::ReadError;

pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const LEN: u32 = 2;
const GROUP: u32 = 3;
const GROUP_END: u32 = 4;
const FIXED32: u32 = 5;

/// Groups inside each other; prost refuses as many messages.
const GROUPS_MAX: usize = 100;

/// Key of field `number` with a wire type, as it stands before the value. Matching on it checks both at once.
pub(super) const fn key(number: u32, wire_type: u32) -> u32 {
    number << 3 | wire_type
}

/// What is left to read of one message.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(super) const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, ReadError> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            [low, high, rest @ ..] if *high < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*low & 0x7f) | u64::from(*high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    #[cold]
    fn long_varint(&mut self) -> Result<u64, ReadError> {
        let mut value = 0;
        for (i, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                if i == 9 && byte > 1 {
                    return Err(ReadError::Varint);
                }
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 {
            ReadError::Truncated
        } else {
            ReadError::Varint
        })
    }

    /// Key of the next field, zero (which is none) at the end of the message.
    #[inline(always)]
    pub(super) fn next_key(&mut self) -> Result<u32, ReadError> {
        match self.rest {
            [] => Ok(0),
            // fields 1 to 15 of every wire type
            [key @ 8..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u32::from(*key))
            }
            _ => self.long_key(),
        }
    }

    #[cold]
    fn long_key(&mut self) -> Result<u32, ReadError> {
        let key = u32::try_from(self.varint()?).map_err(|_| ReadError::Varint)?;
        if key >> 3 == 0 {
            return Err(ReadError::WireType);
        }
        Ok(key)
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], ReadError> {
        let len = usize::try_from(self.varint()?).map_err(|_| ReadError::Truncated)?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(ReadError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    pub(super) fn fixed64(&mut self) -> Result<u64, ReadError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(ReadError::Truncated)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// Steps over the value of a field that nobody asked for.
    pub(super) fn skip(&mut self, key: u32) -> Result<(), ReadError> {
        match key & 7 {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed64().map(drop),
            LEN => self.bytes().map(drop),
            FIXED32 => {
                let (_, rest) = self.rest.split_first_chunk::<4>().ok_or(ReadError::Truncated)?;
                self.rest = rest;
                Ok(())
            }
            GROUP => self.skip_group(key),
            _ => Err(ReadError::WireType),
        }
    }

    /// Steps over all fields up to the end of the group that `key` began.
    #[cold]
    fn skip_group(&mut self, key: u32) -> Result<(), ReadError> {
        let mut open = [0; GROUPS_MAX];
        open[0] = key >> 3;
        let mut depth = 1;
        while depth > 0 {
            let found = self.next_key()?;
            match (found, found & 7) {
                (0, _) => return Err(ReadError::Truncated),
                (_, GROUP) if depth < GROUPS_MAX => {
                    open[depth] = found >> 3;
                    depth += 1;
                }
                (_, GROUP_END) if found >> 3 == open[depth - 1] => depth -= 1,
                (_, GROUP | GROUP_END) => return Err(ReadError::WireType),
                _ => self.skip(found)?,
            }
        }
        Ok(())
    }

    /// The next length-delimited field with this number, stepping over all others.
    pub(super) fn next_len(&mut self, number: u32) -> Result<Option<&'a [u8]>, ReadError> {
        while let found @ 1.. = self.next_key()? {
            if found == key(number, LEN) {
                return self.bytes().map(Some);
            }
            self.skip(found)?;
        }
        Ok(None)
    }
}
