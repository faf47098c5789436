//! `tracegate prices`: what costs are computed from: the list, a price of one's own, and models that have none.

mod add;
mod list;
mod unpriced;

use clap::{Args, Subcommand};
use std::{io::Write, path::PathBuf};

/// What to list, or what else to do.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  tracegate prices gpt-4o\n  tracegate prices --config tracegate.toml house\n  \
                  tracegate prices add openai/house-model --input 0.15 --output 0.60\n  tracegate prices unpriced"
)]
pub struct PricesArgs {
    /// What to do instead of listing
    #[command(subcommand)]
    action: Option<Action>,
    /// Only models whose name contains this
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// Configuration whose [prices] lie over the shipped table [default: ./tracegate.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Give a model a price, in the [prices] of a configuration
    Add(add::AddArgs),
    /// List models that were called and have no price
    Unpriced(unpriced::UnpricedArgs),
}

pub(super) async fn run(args: PricesArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    match args.action {
        None => list::run(args.config.as_deref(), args.model.as_deref(), out),
        Some(Action::Add(add)) => add::run(&add, out),
        Some(Action::Unpriced(unpriced)) => unpriced::run(unpriced, out).await,
    }
}
