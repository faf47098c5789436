//! Sealed files that somebody could not read: named by whoever met them, looked at by the next step of upkeep.

use crossbeam_channel::{Receiver, Sender, bounded};

/// Names that wait; whoever reads a file again names it again.
const WAITING_MAX: usize = 256;

/// Where suspects are named. Clones are the same list.
#[derive(Debug, Clone)]
pub struct Suspects(Sender<String>);

impl Suspects {
    pub(super) fn new() -> (Self, Receiver<String>) {
        let (named, names) = bounded(WAITING_MAX);
        (Self(named), names)
    }

    /// The file with this path (under the data directory) could not be read. It is set aside if it is not what was
    /// written, and stays otherwise.
    pub fn name(&self, path: &str) {
        _ = self.0.try_send(path.to_owned());
    }
}
