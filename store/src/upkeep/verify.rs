//! Whether a sealed file still is what was written.

use crate::{
    SealedFile,
    disk::is_harm,
    error::{At, StoreError},
};
use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Reads a file from beginning to end and says what is wrong with it, if anything.
///
/// # Errors
/// If that cannot be told: the file cannot be opened for a reason that may pass.
pub(crate) fn damage(root: &Path, file: &SealedFile) -> Result<Option<String>, StoreError> {
    let path = root.join(&file.path);
    match checksum(&path) {
        Ok((bytes, crc32c)) if (bytes, crc32c) == (file.bytes, file.crc32c) => Ok(None),
        Ok((bytes, _)) if bytes != file.bytes => Ok(Some(format!("it has {bytes} bytes, not {}", file.bytes))),
        Ok(_) => Ok(Some("its bytes are not those that were written".to_owned())),
        Err(error) if is_lost(&error) => Ok(Some(error.to_string())),
        Err(error) => Err(error).at("read", &path),
    }
}

fn checksum(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let (mut buffer, mut bytes, mut crc32c) = (vec![0; CHUNK_BYTES], 0, 0);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, crc32c));
        }
        bytes += read as u64;
        crc32c = crc32c::crc32c_append(crc32c, &buffer[..read]);
    }
}

/// Whether what the disk says will not pass by waiting.
fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) || is_harm(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waiting_will_not_change_is_lost_and_what_may_pass_is_not() {
        use rustix::io::Errno;
        for lost in [Errno::NOENT, Errno::IO, Errno::BADMSG] {
            assert!(is_lost(&lost.into()), "{lost}");
        }
        #[cfg(target_os = "linux")]
        assert!(is_lost(&Errno::UCLEAN.into()));
        for passes in [Errno::ACCESS, Errno::MFILE, Errno::LOOP, Errno::NOMEM] {
            assert!(!is_lost(&passes.into()), "{passes}");
        }
    }
}
