//! The journal after a start: three hands at once. One reads records ahead, one applies them, and the seal thread takes
//! what is full; what comes out is what one hand after the other would have made.

use super::{
    config::PipelineConfig,
    error::PipelineError,
    fold::Fold,
    seal::{Done, Work},
};
use crossbeam_channel::{Receiver, Sender, bounded};
use proto::release::ReleaseBook;
use std::{sync::Arc, thread};
use store::Recovered;

/// Records that are read and not applied yet.
const AHEAD_MAX: usize = 16;

/// The engine as it was after the last record, and whether a seal still runs.
pub(super) fn replay(
    recovered: Recovered,
    config: &PipelineConfig,
    book: Arc<ReleaseBook>,
    work: &Sender<Work>,
    results: &Receiver<Done>,
) -> Result<(Fold, bool), PipelineError> {
    let mut records = recovered.records;
    thread::scope(|scope| {
        let (out, ahead) = bounded(AHEAD_MAX);
        scope.spawn(move || records.try_for_each(|record| out.send(record)));
        let fold = Fold::new(config.clone(), recovered.base, recovered.state.as_deref(), book)?;
        let mut replay = Replay {
            fold,
            work,
            results,
            sealing: false,
            failed: false,
        };
        for record in ahead {
            replay.fold.apply(record?)?;
            replay.seal_if_full()?;
        }
        // Who comes next must not find doors that wait for a seal.
        while replay.sealing && replay.fold.wants_seal_for_size() {
            replay.wait()?;
            replay.begin();
        }
        Ok((replay.fold, replay.sealing))
    })
}

struct Replay<'a> {
    fold: Fold,
    work: &'a Sender<Work>,
    results: &'a Receiver<Done>,
    sealing: bool,
    /// A seal failed. Rows stay in memory then, as many as the journal holds, and the engine tries again.
    failed: bool,
}

impl Replay<'_> {
    /// Rows pile up only so far: then it waits for the seal that runs.
    fn seal_if_full(&mut self) -> Result<(), PipelineError> {
        if self.sealing && self.fold.overfull() {
            self.wait()?;
        } else if let Ok(done) = self.results.try_recv() {
            self.settle(done)?;
        }
        self.begin();
        Ok(())
    }

    fn wait(&mut self) -> Result<(), PipelineError> {
        let gone = |_| PipelineError::Stopped("the thread that seals has ended, see the log".to_owned());
        self.settle(self.results.recv().map_err(gone)?)
    }

    fn begin(&mut self) {
        if !self.sealing
            && !self.failed
            && self.fold.wants_seal_for_size()
            && let Some(capture) = self.fold.capture(self.fold.may_defer())
        {
            self.sealing = self.work.send(Work::Seal(Box::new(capture))).is_ok();
        }
    }

    fn settle(&mut self, done: Done) -> Result<(), PipelineError> {
        let Done::Sealed(result) = done else {
            return Ok(());
        };
        self.sealing = false;
        self.failed = !self.fold.settle(result)?;
        Ok(())
    }
}
