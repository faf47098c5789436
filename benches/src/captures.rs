//! What real clients sent, as one request.

use std::{fs, io, path::Path};

/// Every trace request below `folder`, one after the other: protobuf messages that stand so are one message.
///
/// # Errors
/// If the folder cannot be read.
pub fn traces(folder: &Path) -> io::Result<Vec<u8>> {
    let mut files = Vec::new();
    for client in fs::read_dir(folder)? {
        let client = client?.path();
        if client.is_dir() {
            for file in fs::read_dir(client)? {
                files.push(file?.path());
            }
        }
    }
    files.retain(|file| file.to_string_lossy().ends_with(".traces.otlp.pb"));
    files.sort();
    let mut body = Vec::new();
    for file in files {
        body.extend(fs::read(file)?);
    }
    Ok(body)
}
