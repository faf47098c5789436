//! The API: health, metrics, SQL, releases, decisions, and what each route should be on.

mod error;
mod host;
mod listen;

pub use host::Hosts;

/// What every handler sees.
#[derive(Debug)]
pub struct Api {
    /// Names the API is reached by.
    pub hosts: Hosts,
}
