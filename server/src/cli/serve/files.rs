//! The files of a running server: read again on SIGHUP, and when they have changed and stayed so for one look.
//!
//! A file that is being written over may be half there at one look. What is taken was the same at two, so that an editor,
//! a copy or a deployment has to stand still in the middle of a file to be misunderstood; a rename is never half done.

use super::ServeArgs;
use crate::{
    config::{Config, FILE_DEFAULT, LoadError, Looks, Sources},
    wire::Reloader,
};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    signal::unix::Signal,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a server is started with, and where that came from.
pub(super) struct Files {
    args: ServeArgs,
    /// The main file; `None` while there is none.
    main: Option<PathBuf>,
    sources: Sources,
    looks: Looks,
    /// What the files were at the last look, if that is not what was read.
    changed: Option<Sources>,
}

impl Files {
    /// Reads the configuration for the first time.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(super) fn open(args: ServeArgs) -> Result<(Self, Config), LoadError> {
        let main = args.config.clone();
        let mut files = Self {
            args,
            main,
            sources: Sources::default(),
            looks: Looks::default(),
            changed: None,
        };
        let config = files.read()?;
        Ok((files, config))
    }

    fn read(&mut self) -> Result<Config, LoadError> {
        let here = || Path::new(FILE_DEFAULT).exists().then(|| FILE_DEFAULT.into());
        let main: Option<PathBuf> = self.main.clone().or_else(here);
        (self.sources, self.changed) = (Sources::default(), None);
        let Some(main) = main else {
            self.sources.missing(Path::new(FILE_DEFAULT));
            return Ok(self.args.over(Config::default()));
        };
        let config = Config::load_from(&main, &mut self.sources)?;
        self.main = Some(main);
        Ok(self.args.over(config))
    }

    /// What the files say now, if they are to be read: on request, or changed and at rest.
    fn read_if(&mut self, asked: bool) -> Option<Result<Config, LoadError>> {
        if !asked && !self.is_changed() {
            return None;
        }
        if let Some(path) = self.main.as_ref().filter(|path| !Sources::can_be_read_again(path)) {
            return Some(Err(LoadError::Unreadable {
                path: path.clone(),
                cause: io::Error::other("what comes through a pipe can be read once; use a file"),
            }));
        }
        Some(self.read())
    }

    fn is_changed(&mut self) -> bool {
        let now = self.looks.again(&self.sources);
        if now == self.sources {
            self.changed = None;
            return false;
        }
        let rests = self.changed.as_ref() == Some(&now);
        self.changed = Some(now);
        rests
    }

    /// Watches until it is dropped.
    pub(super) async fn watch(mut self, mut hangup: Signal, reloader: Reloader) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                Some(()) = hangup.recv() => true,
                _ = look.tick() => false,
            };
            if asked {
                tracing::info!("SIGHUP: reading the configuration");
            }
            let read = spawn_blocking(move || {
                let read = self.read_if(asked);
                (self, read)
            });
            let Ok((files, read)) = read.await else {
                tracing::error!("the configuration is not watched any more: reading it broke off; please report this");
                return;
            };
            self = files;
            match read {
                None => {}
                Some(Ok(config)) => reloader.apply(config).await,
                Some(Err(error)) => reloader.refuse(&error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::serve::JournalRecovery;
    use std::fs;

    fn files(main: &Path) -> Files {
        let args = ServeArgs {
            config: Some(main.to_owned()),
            data_dir: None,
            otlp_grpc: None,
            otlp_http: None,
            http: None,
            insecure: false,
            journal_recovery: JournalRecovery::Strict,
        };
        Files::open(args).unwrap().0
    }

    #[test]
    fn a_file_is_read_once_it_rests() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("t.toml");
        fs::write(&main, "[server]\nseal_age = \"5s\"\n").unwrap();
        let mut files = files(&main);
        for _ in 0..3 {
            assert!(files.read_if(false).is_none());
        }
        // Half of it would be a good file, and mean something else.
        for half in [
            "",
            "[server]\n",
            "[server]\nseal_age = \"7",
            "[server]\nseal_age = \"7s\"\n",
        ] {
            fs::write(&main, half).unwrap();
            assert!(files.read_if(false).is_none(), "{half}");
        }
        let config = files.read_if(false).unwrap().unwrap();
        assert_eq!(config.pipeline.seal_age, Duration::from_secs(7));
        assert!(files.read_if(false).is_none(), "read once");
        assert!(files.read_if(true).is_some(), "on request always");
    }

    #[test]
    fn what_was_refused_is_read_again_when_any_file_of_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (main, schema) = (dir.path().join("t.toml"), dir.path().join("answer.json"));
        fs::write(&main, "").unwrap();
        let mut files = files(&main);
        fs::write(&main, "[[json_schema]]\nroute = \"chat\"\nfile = \"answer.json\"\n").unwrap();
        assert!(files.read_if(true).unwrap().is_err(), "there is no schema yet");
        for _ in 0..3 {
            assert!(files.read_if(false).is_none(), "said once");
        }
        fs::write(&schema, "{}").unwrap();
        assert!(files.read_if(false).is_none());
        let config = files.read_if(false).unwrap().unwrap();
        assert_eq!(config.read.schemas.len(), 1);
    }
}
