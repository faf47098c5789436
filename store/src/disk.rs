//! Every write the store makes goes through here, so that tests can cut the power between any two of them.
//!
//! Reads do not: what a reader finds after a cut is the point of those tests.

use crate::{
    error::{At, StoreError},
    upkeep::Space,
};
use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A file being written.
pub trait DiskFile: Write + Send {
    /// Returns once every byte written so far is on stable storage (`fdatasync`).
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to `len` bytes; the next write goes there.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// The operations whose order makes a kill harmless.
pub trait Disk: fmt::Debug + Send + Sync {
    /// A new, empty file at `path` (an old one is emptied).
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// An existing file, to write after its last byte.
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Moves a file; what was at `to` is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder; one that is not empty stays, and that is an error.
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }
    /// Makes one folder; one that is there is fine.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Room of the file system that a folder lies on.
    fn space(&self, dir: &Path) -> io::Result<Space> {
        space(dir)
    }
}

/// The file system itself.
#[derive(Debug, Default, Clone, Copy)]
pub struct LocalDisk;

struct LocalFile(File);

impl Write for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for LocalFile {
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        // Both ways of opening below append, so the position follows the length.
        self.0.set_len(len)
    }
}

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        file.set_len(0)?;
        Ok(Box::new(LocalFile(file)))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Box::new(LocalFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl Space {
    /// Bytes that can still be taken.
    #[must_use]
    pub const fn free(&self) -> u64 {
        self.total.saturating_sub(self.used)
    }
}

/// Room of the file system that `dir` lies on.
///
/// # Errors
/// If the system does not tell.
pub fn space(dir: &Path) -> io::Result<Space> {
    let found = rustix::fs::statvfs(dir)?;
    let used = found
        .f_blocks
        .saturating_sub(found.f_bfree)
        .saturating_mul(found.f_frsize);
    // What only root may take is neither used nor free for us.
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    Ok(Space {
        used,
        total: used.saturating_add(free),
    })
}

/// Whether the medium or the file system says that what lies there is harmed: waiting will not change that.
pub(crate) fn is_harm(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let harms = [
        Errno::IO,
        Errno::BADMSG,
        #[cfg(target_os = "linux")]
        Errno::UCLEAN,
    ];
    harms
        .iter()
        .any(|harm| error.raw_os_error() == Some(harm.raw_os_error()))
}

/// Makes every folder of `relative` under `root`, and adds them all, with `root`, to `touched`: all must be synced
/// before what lies in them counts, also those that were there, since whoever made them may have been killed.
pub(crate) fn create_dirs(
    disk: &dyn Disk,
    root: &Path,
    relative: &str,
    touched: &mut BTreeSet<PathBuf>,
) -> Result<PathBuf, StoreError> {
    let mut path = root.to_owned();
    touched.insert(path.clone());
    for segment in relative.split('/') {
        path.push(segment);
        if touched.insert(path.clone()) {
            disk.create_dir(&path).at("create folder", &path)?;
        }
    }
    Ok(path)
}

/// Makes `dir`, which may lie below folders that are not there either, and the names of all of them durable; that of
/// `dir` also if it was there, since whoever made it may have been killed.
pub(crate) fn create_root(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    let above = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = dir.ancestors().take_while(is_missing).collect();
    for path in missing.iter().rev() {
        disk.create_dir(path).at("create folder", path)?;
    }
    // It says why, if something else has the name.
    fs::create_dir_all(dir).at("create folder", dir)?;
    for parent in std::iter::once(dir).chain(missing.into_iter().skip(1)).map(above) {
        match disk.sync_dir(&parent) {
            // Whoever may not list a folder cannot sync it: it was made by somebody else, and long before.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!(path = %parent.display(), %error, "the name of the data directory could not be synced");
            }
            synced => synced.synced(&parent)?,
        }
    }
    Ok(())
}

/// Removes the folders between a table and a file of it that was removed, as far as they are empty. Who writes files makes
/// and syncs theirs anew, so it does not matter whether these stay.
pub(crate) fn remove_empty(disk: &dyn Disk, root: &Path, file: &Path) {
    let below_table = |folder: &&Path| {
        folder
            .parent()
            .is_some_and(|table| table.starts_with(root) && table != root)
    };
    for folder in file.ancestors().skip(1).take_while(below_table) {
        if disk.remove_dir(folder).is_err() {
            return;
        }
    }
}

/// Syncs folders, deepest first.
pub(crate) fn sync_dirs(disk: &dyn Disk, dirs: &BTreeSet<PathBuf>) -> Result<(), StoreError> {
    for dir in dirs.iter().rev() {
        disk.sync_dir(dir).synced(dir)?;
    }
    Ok(())
}
