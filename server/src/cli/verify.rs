//! `tracegate verify`: computes a decision again from its evidence, and on request counts its numbers anew from the rows.

mod recount;

use super::{OutputError, ServerArgs, decisions::Source};
use clap::Args;
use gates::desk::{Verified, verify_bundle};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{io::Write, path::PathBuf, process::ExitCode};

/// Which decision, and how far to go.
#[derive(Debug, Args)]
#[command(
    after_help = "Exits with 1 if the bundle does not come out the same, or if the rows hold the same units with other events. \
                  What came late, or was removed by a retention, is said and is no failure.\n\nExamples:\n  tracegate verify dec_01JCZ6Y2V0Q7M4T8K3N5R9W1XB\n  \
                  tracegate verify dec_01JCZ6Y2V0Q7M4T8K3N5R9W1XB --from-data"
)]
pub struct VerifyArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Id of the decision; a file that holds an evidence bundle will do as well
    #[arg(value_name = "ID")]
    id: String,
    /// Also count the numbers again from the tables
    #[arg(long)]
    from_data: bool,
    /// Read a data directory whose server does not run
    #[arg(long, value_name = "D")]
    data_dir: Option<PathBuf>,
}

/// Does not come out the same.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{id} cannot be confirmed: {why}")]
#[diagnostic(help(
    "the evidence was changed after it was written, or written by another version; compare with a backup"
))]
struct Unconfirmed {
    id: String,
    why: String,
}

pub(super) async fn run(args: VerifyArgs, out: &mut (dyn Write + Send)) -> miette::Result<ExitCode> {
    let source = Source::of(args.data_dir.clone(), &args.server)?;
    let path = PathBuf::from(&args.id);
    let evidence = if path.is_file() {
        let text = std::fs::read_to_string(&path).map_err(OutputError)?;
        (text, None)
    } else {
        source.evidence(&args.id).await?
    };
    let (text, chain) = evidence;
    let unconfirmed = |why: String| Unconfirmed {
        id: args.id.clone(),
        why,
    };
    let bundle: Value =
        serde_json::from_str(&text).map_err(|e| unconfirmed(format!("its evidence is not JSON: {e}")))?;
    let mut said = String::new();
    let hash = hex::encode(Sha256::digest(text.as_bytes()));
    if let Some(chain) = chain {
        said.push_str(&chain.check(&hash, &bundle).map_err(unconfirmed)?);
    }
    match verify_bundle(&text).map_err(unconfirmed)? {
        Verified::Same => said.push_str(
            "verdict   rules, judgement, breaker and decision come out the same, bit for bit, from the cells in the bundle\n",
        ),
        Verified::NothingJudged => {
            said.push_str("verdict   a person decided before anything was judged: rules and decision come out the same\n");
        }
    }
    said.push_str(&format!("evidence  {hash}\n"));
    let mut differs = false;
    if args.from_data {
        let recount = recount::from_data(&bundle, &source).await?;
        differs = recount.differs;
        said.push_str(&recount.text);
    }
    out.write_all(said.as_bytes()).map_err(OutputError)?;
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What the ledger says of a decision.
pub(super) struct Chain {
    pub evidence_hash: String,
    pub previous_hash: Option<String>,
    pub before: Before,
}

/// What is known of the decision before it.
pub(super) enum Before {
    /// Its hash; `None` if there never was one.
    Has(Option<String>),
    /// It was removed for its age, then.
    Expired(String),
    /// The list of decisions ends first.
    Unlisted,
}

impl Chain {
    /// What holds, in words.
    fn check(&self, hash: &str, bundle: &Value) -> Result<String, String> {
        if self.evidence_hash != hash {
            return Err("its evidence does not have the hash that the ledger names".to_owned());
        }
        let is_broken = matches!(&self.before, Before::Has(before) if *before != self.previous_hash);
        if bundle["previous_hash"].as_str() != self.previous_hash.as_deref() || is_broken {
            return Err("it does not name the hash of the decision before it".to_owned());
        }
        let before = match &self.before {
            Before::Expired(at) => format!(
                "the chain begins here: the decision\n          before it, whose hash it names, was removed for its age at {at}"
            ),
            Before::Has(None) => "it is the first of the ledger".to_owned(),
            Before::Has(Some(_)) | Before::Unlisted => "names the one before it".to_owned(),
        };
        Ok(format!(
            "chain     the evidence has the hash that the ledger names, and {before}\n"
        ))
    }
}
