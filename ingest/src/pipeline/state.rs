//! What the engine leaves for a restart, and how it is written: never as a whole in memory.

use super::error::PipelineError;
use crate::assemble::AssemblyState;
use postcard::{Serializer, ser_flavors::Flavor};
use proto::Nanos;
use serde::Serialize;
use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::Arc,
};
use store::State;

/// Form of [`EngineState`]; goes up when it changes.
const STATE_VERSION: u8 = 6;

/// Requests of one record, by digest.
pub(super) type Digests = (Nanos, Arc<[u128]>);

/// What a restart needs.
#[derive(Debug, Default)]
pub(super) struct EngineState {
    pub assembly: AssemblyState,
    /// Version of the last rows of `traces`.
    pub row_version: u64,
    pub digests: VecDeque<Digests>,
}

impl State for EngineState {
    fn write(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&[STATE_VERSION])?;
        let mut failed = None;
        let mut to = Serializer {
            output: Through {
                out,
                waiting: Vec::with_capacity(2 * WRITTEN_AT_ONCE),
                failed: &mut failed,
            },
        };
        let written = (self.row_version, &self.digests)
            .serialize(&mut to)
            .and_then(|()| self.assembly.write(&mut to))
            .and_then(|()| to.output.finalize());
        written.map_err(|e| failed.unwrap_or_else(|| io::Error::other(e)))
    }
}

impl EngineState {
    /// Reads what was written.
    pub fn decode(bytes: &[u8]) -> Result<Self, PipelineError> {
        match bytes {
            [STATE_VERSION, state @ ..] => Self::read(state).map_err(|e| PipelineError::State(e.to_string())),
            _ => Err(PipelineError::State(
                "it was written by another version of tracegate".to_owned(),
            )),
        }
    }

    fn read(bytes: &[u8]) -> postcard::Result<Self> {
        let ((row_version, digests), rest) = postcard::take_from_bytes(bytes)?;
        let (assembly, _) = AssemblyState::read(rest)?;
        Ok(Self {
            assembly,
            row_version,
            digests,
        })
    }
}

/// Bytes that are gathered before they are written on.
const WRITTEN_AT_ONCE: usize = 64 << 10;

/// Lets postcard write into anything, without a call for every byte.
struct Through<'a> {
    out: &'a mut dyn Write,
    waiting: Vec<u8>,
    failed: &'a mut Option<io::Error>,
}

impl Through<'_> {
    fn pass_on(&mut self, from: usize) -> postcard::Result<()> {
        if self.waiting.len() > from {
            if let Err(error) = self.out.write_all(&self.waiting) {
                *self.failed = Some(error);
                return Err(postcard::Error::SerializeBufferFull);
            }
            self.waiting.clear();
        }
        Ok(())
    }
}

impl Flavor for Through<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.waiting.push(byte);
        self.pass_on(WRITTEN_AT_ONCE)
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.waiting.extend_from_slice(bytes);
        self.pass_on(WRITTEN_AT_ONCE)
    }

    fn finalize(mut self) -> postcard::Result<()> {
        self.pass_on(0)
    }
}
