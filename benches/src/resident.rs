//! What the kernel says of the memory of this process.

use std::{error::Error, fs};

/// A line of `/proc/self/status` such as `VmRSS:` or `VmHWM:`, KiB.
///
/// # Errors
/// Where there is no such file or line.
pub fn resident(line: &str) -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|l| l.strip_prefix(line));
    Ok(value.ok_or("no such line")?.trim().trim_end_matches(" kB").parse()?)
}
