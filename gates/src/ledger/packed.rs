//! Evidence as it lies on disk: compressed while it is written, and hashed as the text it is.
//!
//! A week of cells is large as text and small compressed; neither the text nor a tree of it is ever held as a whole while a
//! decision is written.

use sha2::{Digest, Sha256};
use std::io::{self, Write};

/// What a bundle may grow to when it is read, bytes: a damaged or forged file must not fill the memory.
const TEXT_MAX: usize = 1 << 30;

/// A bundle's text, compressed (zstd), with the hash of the text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packed {
    bytes: Vec<u8>,
    hash: String,
}

impl Packed {
    /// Packs what `fill` writes.
    ///
    /// # Errors
    /// What `fill` returns.
    pub fn write(fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Self> {
        let mut into = Hashed {
            hash: Sha256::new(),
            into: zstd::Encoder::new(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL)?,
        };
        fill(&mut into)?;
        let Hashed { hash, into } = into;
        Ok(Self {
            bytes: into.finish()?,
            hash: hex::encode(hash.finalize()),
        })
    }

    /// SHA-256 of the text, hex.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The text of packed bytes.
pub(super) fn text(bytes: &[u8]) -> io::Result<String> {
    let mut out = String::new();
    let reader = zstd::Decoder::new(bytes)?;
    io::Read::read_to_string(&mut io::Read::take(reader, TEXT_MAX as u64), &mut out)?;
    Ok(out)
}

/// The hash of the text of packed bytes; `None` if they are damaged.
pub(super) fn hash_of(bytes: &[u8]) -> Option<String> {
    let mut hash = Hashed {
        hash: Sha256::new(),
        into: io::sink(),
    };
    io::copy(&mut zstd::Decoder::new(bytes).ok()?, &mut hash).ok()?;
    Some(hex::encode(hash.hash.finalize()))
}

struct Hashed<W> {
    hash: Sha256,
    into: W,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.into.write(buf)?;
        self.hash.update(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_read_and_a_changed_byte_is_noticed() {
        let text = "{\"cells\":[1,2,3]}".repeat(10_000);
        let packed = Packed::write(|w| w.write_all(text.as_bytes())).unwrap();
        assert!(packed.bytes().len() * 20 < text.len());
        assert_eq!(packed.hash(), hex::encode(Sha256::digest(text.as_bytes())));
        assert_eq!(super::text(packed.bytes()).unwrap(), text);
        assert_eq!(hash_of(packed.bytes()).as_deref(), Some(packed.hash()));
        for at in 0..packed.bytes().len() {
            let mut bytes = packed.bytes().to_vec();
            bytes[at] ^= 0x40;
            assert_ne!(hash_of(&bytes).as_deref(), Some(packed.hash()), "byte {at}");
        }
    }
}
