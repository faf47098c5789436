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
    pub service_version: Option<String>,
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

type Key = fn(&Manifest, &Says) -> bool;

/// What a release declares about calls that nobody stamped, in order of trust: as a server does.
const KEYS: [Key; 6] = [
    |m, s| holds(&m.matches.deployment, s.deployment.as_ref()),
    |m, s| s.service_version.as_ref() == Some(&m.version),
    |m, s| holds(&m.matches.variant, s.variant.as_ref()),
    model_and_host,
    |m, s| holds(&m.matches.prompt_version, s.prompt_version.as_ref()),
    |m, s| holds(&m.matches.tools, s.tools.as_ref()),
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
        KEYS.iter().find_map(|fits| self.only(|m| fits(m, says)))
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

fn holds(declared: &[String], said: Option<&String>) -> bool {
    said.is_some_and(|said| declared.contains(said))
}

/// Models and host are one key: where a manifest declares several of them, all must fit.
fn model_and_host(manifest: &Manifest, says: &Says) -> bool {
    let matches = &manifest.matches;
    let keys = [
        (&matches.response_model, says.response_model.as_ref()),
        (&matches.request_model, says.request_model.as_ref()),
        (&matches.host, says.host.as_ref()),
    ];
    keys.iter().any(|(declared, _)| !declared.is_empty())
        && keys
            .iter()
            .all(|(declared, said)| declared.is_empty() || holds(declared, *said))
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
    fn models_and_host_are_one_key() {
        let keys = |model: &str, host: &str| Match {
            response_model: vec![model.into()],
            request_model: vec!["alias".into()],
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
            request_model: Some("alias".into()),
            host: Some(host.into()),
            ..Says::default()
        };
        assert_eq!(sides.of_call(&call("us")), Some(Color::Green));
        assert_eq!(sides.of_call(&call("asia")), None);
        let mut other = call("us");
        other.request_model = Some("m-7b".into());
        assert_eq!(sides.of_call(&other), None, "all that are declared must fit");
    }

    #[test]
    fn keys_are_asked_in_the_order_of_a_server() {
        let keys = |deployment: &str, prompt: &str, tools: &str| Match {
            deployment: vec![deployment.into()],
            prompt_version: vec![prompt.into()],
            tools: vec![tools.into()],
            ..Match::default()
        };
        let (blue, green) = (
            manifest("1", keys("b", "12", "t1")),
            manifest("2", keys("g", "13", "t2")),
        );
        let sides = Sides {
            blue: &blue,
            green: &green,
            versioned: false,
        };
        let mut call = Says {
            tools: Some("t1".into()),
            ..Says::default()
        };
        assert_eq!(sides.of_call(&call), Some(Color::Blue));
        call.prompt_version = Some("13".into());
        assert_eq!(sides.of_call(&call), Some(Color::Green));
        call.service_version = Some("1".into());
        assert_eq!(sides.of_call(&call), Some(Color::Blue));
        call.deployment = Some("g".into());
        assert_eq!(sides.of_call(&call), Some(Color::Green));
    }
}
