//! What is wrong with a configuration file: all of it at once, each problem at its line, each with what to do.

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};
use std::{fmt, ops::Range, sync::Arc};

/// One thing to correct.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The file, with its text.
    pub source: Arc<NamedSource<String>>,
    /// Bytes of the text it is about; `None` if it is about the whole file.
    pub span: Option<Range<usize>>,
    /// What is wrong, lower case.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Problem {
    /// The file, and the line in it if it is about one.
    #[must_use]
    pub fn place(&self) -> String {
        let (file, text) = (self.source.name(), self.source.inner());
        match self.span.as_ref().and_then(|span| text.get(..span.start)) {
            Some(before) => format!("{file}:{}", before.matches('\n').count() + 1),
            None => file.to_owned(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        Some(Box::new(std::iter::once(LabeledSpan::underline(span))))
    }
}

/// Every problem of a file and the files it includes.
#[derive(Debug)]
pub struct Problems {
    /// The file that was asked for.
    pub file: String,
    /// In the order of the text.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => write!(f, "{} has 1 problem", self.file),
            n => write!(f, "{} has {n} problems", self.file),
        }
    }
}

impl std::error::Error for Problems {}

impl Diagnostic for Problems {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|p| p as &dyn Diagnostic)))
    }
}
