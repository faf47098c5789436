//! What a configuration was read from, and whether any of it is different now.
//!
//! Files are looked at again and again instead of being told of changes by the system: that works on every kind of
//! volume, with editors that replace a file by renaming another over it, and with folders that are swapped by a link.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Metadata},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Largest file of a configuration, bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Most files one pattern of `include` may match.
const INCLUDES_MAX: usize = 1_000;

/// Digest of a file's bytes; `None` if it cannot be read.
type Digest = Option<u64>;

/// The files of a configuration, with what was in them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// Those that are named.
    named: BTreeMap<PathBuf, Digest>,
    /// Paths of `include`, whose last segment may hold one `*`.
    patterns: BTreeSet<PathBuf>,
    /// Those that match.
    found: BTreeMap<PathBuf, Digest>,
}

impl Sources {
    /// Reads a file and notes it.
    ///
    /// # Errors
    /// If it cannot be read, is too long for a configuration, or is no text. It is noted all the same.
    pub fn read(&mut self, path: &Path) -> io::Result<String> {
        let (noted, text) = read_noted(path);
        self.named.insert(path.to_owned(), noted);
        text
    }

    /// Notes a file that is not there, and is read once it is.
    pub fn missing(&mut self, path: &Path) {
        self.named.insert(path.to_owned(), None);
    }

    /// Reads every file that matches a path whose last segment may hold one `*`, by name, and notes them all.
    ///
    /// # Errors
    /// If the folder or any of the files cannot be read, or too many match.
    pub fn read_all(&mut self, pattern: &Path) -> io::Result<Vec<(String, String)>> {
        self.patterns.insert(pattern.to_owned());
        // All of them, also behind one that cannot be read: what is not noted would look like a change for ever.
        let mut texts = Vec::new();
        for path in matching(pattern)? {
            let (noted, text) = read_noted(&path);
            texts.push((path.display().to_string(), text));
            self.found.insert(path, noted);
        }
        texts.into_iter().map(|(name, text)| Ok((name, text?))).collect()
    }

    /// Whether a file can be read twice: what comes through a pipe is gone after the first time.
    #[must_use]
    pub fn can_be_read_again(path: &Path) -> bool {
        fs::metadata(path).map_or(true, |known| known.is_file())
    }
}

fn read_noted(path: &Path) -> (Digest, io::Result<String>) {
    let bytes = read(path);
    let noted = bytes.as_ref().ok().map(|bytes| digest(bytes));
    let text = bytes.and_then(|bytes| {
        String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
    });
    (noted, text)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let size = fs::metadata(path)?.len();
    if size > FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it has {size} bytes, more than the {FILE_BYTES_MAX} of any configuration"
        )));
    }
    fs::read(path)
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Files that match, by name. Without a `*` the path itself, whether it is there or not.
fn matching(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((before, after)) = name.split_once('*') else {
        return Ok(vec![pattern.to_owned()]);
    };
    let within = pattern.parent().filter(|p| !p.as_os_str().is_empty());
    let mut paths = Vec::new();
    for entry in fs::read_dir(within.unwrap_or(Path::new(".")))? {
        let found = entry?.path();
        let found_name = found.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if found_name.len() >= before.len() + after.len()
            && found_name.starts_with(before)
            && found_name.ends_with(after)
        {
            paths.push(found);
        }
    }
    paths.sort();
    if paths.len() > INCLUDES_MAX {
        return Err(io::Error::other(format!(
            "{} files match, more than {INCLUDES_MAX}",
            paths.len()
        )));
    }
    Ok(paths)
}

/// What tells two states of a file apart without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    length: u64,
    inode: u64,
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            length: file.len(),
            inode: file.ino(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Known {
    stamp: Stamp,
    digest: Digest,
    /// Read at two looks with the same stamp: a write in the same tick of the file system's clock would have shown.
    is_sure: bool,
}

/// Looks at files again and again; one whose stamp has settled is not read.
#[derive(Debug, Default)]
pub struct Looks {
    known: BTreeMap<PathBuf, Known>,
}

impl Looks {
    /// The same sources as they are now: equal to `sources` if nothing has changed.
    pub fn again(&mut self, sources: &Sources) -> Sources {
        let before = std::mem::take(&mut self.known);
        let mut look = |path: PathBuf, noted: Option<Digest>| {
            let now = match fs::metadata(&path) {
                Ok(file) if file.is_file() => self.look(&path, &file, before.get(&path)),
                // A pipe was read once and is not read again.
                Ok(_) => noted.flatten(),
                Err(_) => None,
            };
            (path, now)
        };
        let listed = sources.patterns.iter();
        let listed: BTreeSet<PathBuf> = listed.flat_map(|p| matching(p).unwrap_or_default()).collect();
        Sources {
            named: sources
                .named
                .iter()
                .map(|(path, noted)| look(path.clone(), Some(*noted)))
                .collect(),
            patterns: sources.patterns.clone(),
            found: listed
                .into_iter()
                .map(|path| {
                    let noted = sources.found.get(&path).copied();
                    look(path, noted)
                })
                .collect(),
        }
    }

    fn look(&mut self, path: &Path, file: &Metadata, before: Option<&Known>) -> Digest {
        let stamp = Stamp::of(file);
        let same = before.filter(|known| known.stamp == stamp);
        let known = match same {
            Some(sure) if sure.is_sure => *sure,
            _ => Known {
                stamp,
                digest: read(path).ok().map(|bytes| digest(&bytes)),
                is_sure: same.is_some(),
            },
        };
        self.known.insert(path.to_owned(), known);
        known.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_change_a_file_is_seen_and_looking_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (main, more) = (dir.path().join("main.toml"), dir.path().join("more"));
        fs::create_dir(&more).unwrap();
        fs::write(&main, "aaaa").unwrap();
        let load = || {
            let mut sources = Sources::default();
            let _ = sources.read(&main);
            let _ = sources.read_all(&more.join("*.toml"));
            sources
        };
        let (mut looks, mut sources) = (Looks::default(), load());
        for _ in 0..3 {
            assert_eq!(looks.again(&sources), sources);
        }
        let changes: [(&str, &dyn Fn()); 7] = [
            ("written over, as long as before", &|| fs::write(&main, "bbbb").unwrap()),
            ("replaced by rename, as editors do", &|| {
                fs::write(dir.path().join("main.toml~"), "cccc").unwrap();
                fs::rename(dir.path().join("main.toml~"), &main).unwrap();
            }),
            ("gone", &|| fs::remove_file(&main).unwrap()),
            ("back", &|| fs::write(&main, "dddd").unwrap()),
            ("another that matches", &|| fs::write(more.join("a.toml"), "a").unwrap()),
            ("a match is gone", &|| fs::remove_file(more.join("a.toml")).unwrap()),
            ("no text any more", &|| fs::write(&main, [0xff, 0xfe]).unwrap()),
        ];
        for (what, change) in changes {
            change();
            let now = looks.again(&sources);
            assert_ne!(now, sources, "{what}");
            sources = load();
            assert_eq!(now, sources, "{what}: what is seen is what is read");
            assert_eq!(looks.again(&sources), sources, "{what}");
        }
        fs::write(more.join("no.txt"), "").unwrap();
        assert_eq!(looks.again(&sources), sources, "a file that nobody reads");
    }

    #[test]
    fn a_touched_file_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("main.toml");
        fs::write(&main, "a").unwrap();
        let mut sources = Sources::default();
        sources.read(&main).unwrap();
        let mut looks = Looks::default();
        looks.again(&sources);
        fs::write(&main, "a").unwrap();
        assert_eq!(looks.again(&sources), sources);
    }
}
