//! What all queries share and none may exceed: memory, spill space, and the only place files may be read from.

use crate::QueryError;
use datafusion::{
    error::{DataFusionError, Result},
    execution::{
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::{FairSpillPool, TrackConsumersPool},
        object_store::{ObjectStoreRegistry, ObjectStoreUrl},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
};
use object_store::{ObjectStore, local::LocalFileSystem};
use std::{num::NonZeroUsize, path::Path, sync::Arc};
use url::Url;

/// Memory when the machine's cannot be read, bytes.
const MEMORY_FALLBACK: usize = 512 << 20;
/// Share of the machine's memory that queries may use together: one in five.
const MEMORY_DIVISOR: u64 = 5;
/// Consumers that a memory error names.
const NAMED_CONSUMERS: NonZeroUsize = NonZeroUsize::MIN;

/// The data directory, as plans name it. Not a URL that SQL could use: no statement takes one.
pub fn sealed_url() -> Result<ObjectStoreUrl> {
    ObjectStoreUrl::parse("sealed://data")
}

/// A registry of one store, rooted at the data directory. There is no store for `file://`, so even a plan that
/// named a path could not open it.
#[derive(Debug)]
struct SealedFilesOnly(Arc<dyn ObjectStore>);

impl ObjectStoreRegistry for SealedFilesOnly {
    fn register_store(&self, _: &Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        if url.scheme() == "sealed" {
            return Ok(Arc::clone(&self.0));
        }
        Err(DataFusionError::External(Box::new(QueryError::Forbidden(format!(
            "reading `{url}` is not allowed"
        )))))
    }
}

/// The environment that all queries share.
pub fn runtime_env(data_dir: &Path, memory_bytes: usize, spill_bytes: u64) -> Result<Arc<RuntimeEnv>, QueryError> {
    let setup = |e: &dyn std::fmt::Display| QueryError::Setup(format!("data directory {}: {e}", data_dir.display()));
    std::fs::create_dir_all(data_dir).map_err(|e| setup(&e))?;
    let files = Arc::new(LocalFileSystem::new_with_prefix(data_dir).map_err(|e| setup(&e))?);
    let spill_dir = data_dir.join(proto::layout::TMP);
    let build = |mode| {
        RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(TrackConsumersPool::new(
                FairSpillPool::new(memory_bytes),
                NAMED_CONSUMERS,
            )))
            .with_object_store_registry(Arc::new(SealedFilesOnly(Arc::clone(&files) as _)))
            .with_disk_manager_builder(
                DiskManagerBuilder::default()
                    .with_mode(mode)
                    .with_max_temp_directory_size(spill_bytes),
            )
            .build_arc()
    };
    build(DiskManagerMode::Directories(vec![spill_dir]))
        .or_else(|error| {
            tracing::warn!(%error, "queries cannot spill to disk");
            build(DiskManagerMode::Disabled)
        })
        .map_err(|e| setup(&e))
}

/// A fifth of the memory this process may use (the machine's, or the container's if that is less), bytes.
pub fn default_memory() -> usize {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let machine = read("/proc/meminfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .map(|kib| kib * 1024);
    let container = read("/sys/fs/cgroup/memory.max").trim().parse::<u64>().ok();
    let total = match (machine, container) {
        (Some(machine), Some(container)) => Some(machine.min(container)),
        (one, other) => one.or(other),
    };
    total.map_or(MEMORY_FALLBACK, |bytes| {
        usize::try_from(bytes / MEMORY_DIVISOR).unwrap_or(MEMORY_FALLBACK)
    })
}
