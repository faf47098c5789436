//! A disk that loses what was not synced, stops at a chosen step, and can fail on purpose.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use store::{
    Space,
    disk::{Disk, DiskFile, LocalDisk},
};

/// What happens at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Power goes: this step does not happen (a write may happen in part), nor any after it.
    Cut,
    /// The next sync at or after this step fails with EIO, once.
    SyncError,
    /// The next write at or after this step finds the disk full after half of its bytes, once.
    Full,
    /// The next write at or after this step is refused, once, for a reason that is neither.
    Refused,
    /// From this step on there is no more room than so many bytes.
    Left(u64),
}

#[derive(Debug, Default)]
struct Model {
    step: u64,
    fault: Option<(u64, Fault)>,
    cut: bool,
    /// Bytes written and bytes synced of every file, by its current path.
    files: HashMap<PathBuf, (u64, u64)>,
    /// Changes of names that no `sync_dir` has made durable, oldest first.
    names: Vec<Change>,
    syncs: u64,
    synced_dirs: BTreeSet<PathBuf>,
}

#[derive(Debug)]
enum Change {
    Create(PathBuf),
    Mkdir(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf, Vec<u8>),
}

impl Change {
    fn path(&self) -> &Path {
        match self {
            Self::Create(p) | Self::Mkdir(p) | Self::Rename(_, p) | Self::Remove(p, _) => p,
        }
    }
}

/// Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk(Arc<Mutex<Model>>);

fn gone() -> io::Error {
    io::Error::other("power cut")
}

impl FaultyDisk {
    pub fn with(step: u64, fault: Fault) -> Self {
        let disk = Self::default();
        disk.0.lock().unwrap().fault = Some((step, fault));
        disk
    }

    /// A fault `steps` from now.
    pub fn arm(&self, steps: u64, fault: Fault) {
        let mut model = self.0.lock().unwrap();
        model.fault = Some((model.step + steps, fault));
    }

    pub fn disarm(&self) {
        self.0.lock().unwrap().fault = None;
    }

    pub fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }

    pub fn synced_dirs(&self) -> BTreeSet<PathBuf> {
        self.0.lock().unwrap().synced_dirs.clone()
    }

    pub fn is_cut(&self) -> bool {
        self.0.lock().unwrap().cut
    }

    /// Leaves on the real disk what a power cut might: synced bytes and names, and any part of the rest.
    pub fn lose_unsynced(&self, rng: &mut ChaCha8Rng) {
        let mut model = self.0.lock().unwrap();
        let keep_all = rng.random_bool(0.2);
        for change in std::mem::take(&mut model.names).into_iter().rev() {
            if keep_all || rng.random_bool(0.5) {
                continue;
            }
            match change {
                Change::Create(path) => {
                    _ = fs::remove_file(&path);
                    model.files.remove(&path);
                }
                Change::Mkdir(path) => _ = fs::remove_dir_all(path),
                Change::Rename(from, to) => {
                    if fs::rename(&to, &from).is_ok()
                        && let Some(state) = model.files.remove(&to)
                    {
                        model.files.insert(from, state);
                    }
                }
                Change::Remove(path, bytes) => _ = fs::write(path, bytes),
            }
        }
        for (path, (_, synced)) in &model.files {
            let Ok(mut bytes) = fs::read(path) else {
                continue;
            };
            let synced = *synced as usize;
            match rng.random_range(0..4) {
                0 => {}
                1 => bytes.truncate(rng.random_range(synced..=bytes.len())),
                2 => {
                    let from = rng.random_range(synced..=bytes.len());
                    bytes[from..].fill(0);
                }
                _ => bytes[synced..].iter_mut().for_each(|b| {
                    if rng.random_bool(0.01) {
                        *b = rng.random();
                    }
                }),
            }
            fs::write(path, bytes).unwrap();
        }
    }

    fn step(&self) -> io::Result<()> {
        let mut model = self.0.lock().unwrap();
        model.step += 1;
        if let Some((at, Fault::Cut)) = model.fault
            && model.step >= at
        {
            model.cut = true;
        }
        if model.cut { Err(gone()) } else { Ok(()) }
    }

    /// True once, when `fault` is due.
    fn due(&self, fault: Fault) -> bool {
        let mut model = self.0.lock().unwrap();
        let due = model.fault.is_some_and(|(at, f)| f == fault && model.step >= at);
        if due {
            model.fault = None;
        }
        due
    }

    fn named(&self, change: Change) {
        self.0.lock().unwrap().names.push(change);
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.step()?;
        let file = LocalDisk.create(path)?;
        self.named(Change::Create(path.to_owned()));
        self.0.lock().unwrap().files.insert(path.to_owned(), (0, 0));
        Ok(Box::new(FaultyFile {
            disk: self.clone(),
            path: path.to_owned(),
            file,
        }))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.step()?;
        let len = fs::metadata(path)?.len();
        self.0
            .lock()
            .unwrap()
            .files
            .entry(path.to_owned())
            .or_insert((len, len));
        let file = LocalDisk.append(path)?;
        Ok(Box::new(FaultyFile {
            disk: self.clone(),
            path: path.to_owned(),
            file,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        LocalDisk.rename(from, to)?;
        self.named(Change::Rename(from.to_owned(), to.to_owned()));
        let mut model = self.0.lock().unwrap();
        if let Some(state) = model.files.remove(from) {
            model.files.insert(to.to_owned(), state);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        let bytes = fs::read(path)?;
        LocalDisk.remove(path)?;
        self.named(Change::Remove(path.to_owned(), bytes));
        self.0.lock().unwrap().files.remove(path);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        LocalDisk.remove_dir(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        let new = !path.exists();
        LocalDisk.create_dir(path)?;
        if new {
            self.named(Change::Mkdir(path.to_owned()));
        }
        Ok(())
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let model = self.0.lock().unwrap();
        let found = LocalDisk.space(dir)?;
        Ok(match model.fault {
            Some((step, Fault::Left(bytes))) if model.step >= step => Space {
                used: found.total - bytes,
                ..found
            },
            _ => found,
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        if self.due(Fault::SyncError) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let mut model = self.0.lock().unwrap();
        model.synced_dirs.insert(path.to_owned());
        model.names.retain(|change| change.path().parent() != Some(path));
        Ok(())
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl FaultyFile {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        let mut model = self.disk.0.lock().unwrap();
        if let Some(state) = model.files.get_mut(&self.path) {
            state.0 += bytes.len() as u64;
        }
        Ok(())
    }
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.disk.is_cut() && self.disk.step().is_err() {
            self.put(&bytes[..bytes.len() / 2])?;
        }
        if self.disk.is_cut() {
            return Err(gone());
        }
        if self.disk.due(Fault::Refused) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.disk.due(Fault::Full) {
            self.put(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.put(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for FaultyFile {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.step()?;
        let failed = self.disk.due(Fault::SyncError);
        let mut model = self.disk.0.lock().unwrap();
        model.syncs += 1;
        if failed {
            return Err(io::Error::from_raw_os_error(5));
        }
        if let Some(state) = model.files.get_mut(&self.path) {
            state.1 = state.0;
        }
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.disk.step()?;
        self.file.truncate(len)?;
        let mut model = self.disk.0.lock().unwrap();
        if let Some(state) = model.files.get_mut(&self.path) {
            *state = (len, state.1.min(len));
        }
        Ok(())
    }
}
