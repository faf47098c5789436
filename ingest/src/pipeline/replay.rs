//! The journal after a start: three hands at once. One reads records ahead, one applies them, one seals what is full; what
//! comes out is what one hand after the other would have made.

use super::{config::PipelineConfig, error::PipelineError, fold::Fold, seal::SealThread};
use crossbeam_channel::bounded;
use proto::release::ReleaseBook;
use std::{panic, sync::Arc, thread};
use store::{Recovered, Sealed};

/// Records that are read and not applied yet.
const AHEAD_MAX: usize = 4;

type Sealing<'scope> = thread::ScopedJoinHandle<'scope, Result<Sealed, PipelineError>>;

/// The engine as it was after the last record.
pub(super) fn replay(
    recovered: Recovered,
    config: &PipelineConfig,
    book: Arc<ReleaseBook>,
    seals: &SealThread,
) -> Result<Fold, PipelineError> {
    let mut fold = Fold::new(config.clone(), recovered.base, recovered.state.as_deref(), book)?;
    let mut records = recovered.records;
    thread::scope(|scope| {
        let (out, ahead) = bounded(AHEAD_MAX);
        scope.spawn(move || records.try_for_each(|record| out.send(record)));
        let mut sealing: Option<Sealing<'_>> = None;
        for record in ahead {
            fold.apply(record?)?;
            if !fold.wants_seal_for_size() {
                continue;
            }
            if let Some(sealing) = sealing.take() {
                fold.sealed(&ended(sealing)?);
            }
            if let Some(capture) = fold.capture(fold.may_defer()) {
                sealing = Some(scope.spawn(move || seals.seal(capture)));
            }
        }
        if let Some(sealing) = sealing {
            fold.sealed(&ended(sealing)?);
        }
        Ok(fold)
    })
}

fn ended(sealing: Sealing<'_>) -> Result<Sealed, PipelineError> {
    sealing.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
}
