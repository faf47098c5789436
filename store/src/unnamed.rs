//! Sealed files that no commit record names: what a kill left half done. They go, unless they may be all that is left
//! of rows.

use crate::{
    commit::Loaded,
    disk::{self, Disk},
    error::{At, StoreError},
    store::RecoveryReport,
};
use proto::layout::{self, Table};
use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
};

/// What lies in the folders of tables, and in that of unfinished files, without being named.
#[derive(Debug)]
pub(crate) struct Unnamed<'a> {
    root: &'a Path,
    sealed: BTreeSet<PathBuf>,
    unfinished: BTreeSet<PathBuf>,
    /// Folders of tables without any file, deepest first.
    empty: Vec<PathBuf>,
}

impl<'a> Unnamed<'a> {
    pub(crate) fn find(root: &'a Path, loaded: &Loaded) -> Result<Self, StoreError> {
        let commit = &loaded.newest;
        let named: HashSet<PathBuf> = commit
            .files
            .iter()
            .chain(&commit.quarantined)
            .chain(&loaded.previous_files)
            .map(|file| root.join(&file.path))
            .collect();
        let (mut sealed, mut unfinished, mut empty) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for table in Table::ALL {
            collect(&root.join(table.as_str()), &mut sealed, &mut empty)?;
        }
        collect(&root.join(layout::TMP), &mut unfinished, &mut Vec::new())?;
        sealed.retain(|path| !named.contains(path));
        Ok(Self {
            root,
            sealed,
            unfinished,
            empty,
        })
    }

    /// Without any commit record, sealed files are those of a first seal that a kill cut off, if the journal still has
    /// every record from the first one on (`is_whole`). If it has not, commit records were lost, and files with them.
    pub(crate) fn refuse_if_lost(&self, loaded: &Loaded, is_whole: bool) -> Result<(), StoreError> {
        if loaded.found || is_whole || self.sealed.is_empty() {
            return Ok(());
        }
        Err(StoreError::NoCommit {
            path: self.root.join(layout::COMMITS),
        })
    }

    /// Removes them, and empty folders. If acked records are lost, the sealed ones are moved away instead: some of those records may be in
    /// them, but nobody can tell which, so they must not answer beside what the journal still has.
    pub(crate) fn clear(&self, disk: &dyn Disk, report: &mut RecoveryReport) -> Result<(), StoreError> {
        for path in &self.unfinished {
            disk.remove(path).at("remove", path)?;
            report.orphans_removed += 1;
        }
        let is_kept = report.lost_records > 0;
        let mut folders = BTreeSet::new();
        for folder in &self.empty {
            _ = disk.remove_dir(folder);
        }
        for path in &self.sealed {
            if is_kept {
                self.keep(disk, path, &mut folders)?;
                report.orphans_kept += 1;
            } else {
                disk.remove(path).at("remove", path)?;
                report.orphans_removed += 1;
            }
            disk::remove_empty(disk, self.root, path);
        }
        if is_kept && !self.sealed.is_empty() {
            let folder = self.root.join(layout::ORPHANS);
            tracing::warn!(
                files = self.sealed.len(),
                folder = %folder.display(),
                "records were lost; sealed files that no commit record names are kept aside, and not read"
            );
        }
        disk::sync_dirs(disk, &folders)
    }

    fn keep(&self, disk: &dyn Disk, path: &Path, folders: &mut BTreeSet<PathBuf>) -> Result<(), StoreError> {
        let relative = path.strip_prefix(self.root).unwrap_or(path);
        let kept = Path::new(layout::ORPHANS).join(relative);
        let folder = kept.parent().and_then(Path::to_str).unwrap_or(layout::ORPHANS);
        disk::create_dirs(disk, self.root, folder, folders)?;
        let to = self.root.join(&kept);
        disk.rename(path, &to).at("rename to", &to)
    }
}

/// Adds the files below `folder`, and folders below it that have none; whether it has any itself.
fn collect(folder: &Path, files: &mut BTreeSet<PathBuf>, empty: &mut Vec<PathBuf>) -> Result<bool, StoreError> {
    if !folder.is_dir() {
        return Ok(false);
    }
    let mut has_files = false;
    for entry in fs::read_dir(folder).at("list", folder)? {
        let path = entry.at("list", folder)?.path();
        if !path.is_dir() {
            files.insert(path);
            has_files = true;
        } else if collect(&path, files, empty)? {
            has_files = true;
        } else {
            empty.push(path);
        }
    }
    Ok(has_files)
}
