//! Who was blue and who was green in history, by what a release file declares.
//!
//! A version that a manifest names says it; where no version is known a stamped color does, then the keys of `match`.
//! Traces of any other version are not the release's and are left out. If history names none of the two versions at all,
//! its versions mean something else, and stamped colors stand whatever version is beside them.

use proto::{Color, release::Manifest};

/// What one row says of itself.
#[derive(Debug, Default, Clone)]
pub struct Says {
    pub version: Option<String>,
    pub color: Option<Color>,
    pub deployment: Option<String>,
    pub variant: Option<String>,
    pub response_model: Option<String>,
    pub request_model: Option<String>,
    pub host: Option<String>,
    pub tools: Option<String>,
    pub prompt_version: Option<String>,
}

/// The two sides of a release.
#[derive(Debug)]
pub struct Sides<'a> {
    pub blue: &'a Manifest,
    pub green: &'a Manifest,
    /// Whether history names either version.
    pub versioned: bool,
}

/// What is known of a trace by its own row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Its color.
    Color(Color),
    /// It is of another version.
    Other,
    /// Its calls may say.
    Nothing,
}

type Key = (fn(&Manifest) -> &[String], fn(&Says) -> Option<&String>);

/// Keys of `match` in order of trust. Model and host are one key.
const KEYS: [Key; 5] = [
    (|m| &m.matches.deployment, |s| s.deployment.as_ref()),
    (|m| &m.matches.variant, |s| s.variant.as_ref()),
    (|m| &m.matches.request_model, |s| s.request_model.as_ref()),
    (|m| &m.matches.tools, |s| s.tools.as_ref()),
    (|m| &m.matches.prompt_version, |s| s.prompt_version.as_ref()),
];

impl Sides<'_> {
    /// Color of a trace by its row.
    pub fn of_trace(&self, says: &Says) -> Known {
        if let Some(color) = self.of_version(says) {
            return Known::Color(color);
        }
        if self.versioned && says.version.is_some() {
            return Known::Other;
        }
        says.color.map_or(Known::Nothing, Known::Color)
    }

    /// Color of a call; `None` if it says nothing, so that it is its trace's.
    pub fn of_call(&self, says: &Says) -> Option<Color> {
        self.of_version(says)
            .or_else(|| says.color.filter(|_| !self.versioned || says.version.is_none()))
            .or_else(|| self.by_match(says))
    }

    /// Whether any side declares keys.
    pub fn has_keys(&self) -> bool {
        !self.blue.matches.is_empty() || !self.green.matches.is_empty()
    }

    fn of_version(&self, says: &Says) -> Option<Color> {
        let version = says.version.as_ref()?;
        if *version == self.green.version {
            Some(Color::Green)
        } else if *version == self.blue.version {
            Some(Color::Blue)
        } else {
            None
        }
    }

    fn by_match(&self, says: &Says) -> Option<Color> {
        let first = |keys: &[Key]| {
            keys.iter()
                .find_map(|(declared, said)| self.only(|m| said(says).is_some_and(|value| declared(m).contains(value))))
        };
        first(&KEYS[..2])
            .or_else(|| self.only(|m| model_and_host(m, says)))
            .or_else(|| first(&KEYS[2..]))
    }

    /// The one side for which it holds; neither if both.
    fn only(&self, holds: impl Fn(&Manifest) -> bool) -> Option<Color> {
        match (holds(self.blue), holds(self.green)) {
            (true, false) => Some(Color::Blue),
            (false, true) => Some(Color::Green),
            _ => None,
        }
    }
}

/// Where a manifest declares both, both must fit.
fn model_and_host(manifest: &Manifest, says: &Says) -> bool {
    let fits = |declared: &[String], value: Option<&String>| value.is_some_and(|v| declared.contains(v));
    let (models, hosts) = (&manifest.matches.response_model, &manifest.matches.host);
    (!models.is_empty() || !hosts.is_empty())
        && (models.is_empty() || fits(models, says.response_model.as_ref()))
        && (hosts.is_empty() || fits(hosts, says.host.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::release::Match;

    fn manifest(version: &str, matches: Match) -> Manifest {
        let mut manifest: Manifest = serde_json::from_value(serde_json::json!({
            "version": version, "provider": "p", "model": "m", "prompt": "p@1", "tools": "t", "guardrails": "g",
            "cache": "c", "fallback": [], "policy": "p", "logging": "l", "pii": "p",
        }))
        .unwrap();
        manifest.matches = matches;
        manifest
    }

    fn says(version: Option<&str>, color: Option<Color>) -> Says {
        Says {
            version: version.map(str::to_owned),
            color,
            ..Says::default()
        }
    }

    #[test]
    fn versions_come_before_stamps_and_stamps_before_matches() {
        let keys = Match {
            prompt_version: vec!["13".into()],
            ..Match::default()
        };
        let (blue, green) = (manifest("41", Match::default()), manifest("42", keys));
        let mut sides = Sides {
            blue: &blue,
            green: &green,
            versioned: true,
        };
        let of = |sides: &Sides<'_>, version, color| sides.of_trace(&says(version, color));
        assert_eq!(of(&sides, Some("42"), Some(Color::Blue)), Known::Color(Color::Green));
        assert_eq!(of(&sides, Some("40"), Some(Color::Blue)), Known::Other);
        assert_eq!(of(&sides, None, Some(Color::Blue)), Known::Color(Color::Blue));
        assert_eq!(of(&sides, None, None), Known::Nothing);
        sides.versioned = false;
        assert_eq!(
            of(&sides, Some("1.9.3"), Some(Color::Green)),
            Known::Color(Color::Green)
        );

        let mut call = says(None, None);
        assert_eq!(sides.of_call(&call), None);
        call.prompt_version = Some("13".into());
        assert_eq!(sides.of_call(&call), Some(Color::Green));
        call.color = Some(Color::Blue);
        assert_eq!(sides.of_call(&call), Some(Color::Blue));
        assert!(sides.has_keys());
    }

    #[test]
    fn model_and_host_are_one_key() {
        let keys = |model: &str, host: &str| Match {
            response_model: vec![model.into()],
            host: vec![host.into()],
            ..Match::default()
        };
        let (blue, green) = (manifest("1", keys("m", "eu")), manifest("2", keys("m", "us")));
        let sides = Sides {
            blue: &blue,
            green: &green,
            versioned: false,
        };
        let call = |host: &str| Says {
            response_model: Some("m".into()),
            host: Some(host.into()),
            ..Says::default()
        };
        assert_eq!(sides.of_call(&call("us")), Some(Color::Green));
        assert_eq!(sides.of_call(&call("asia")), None);
    }
}
