//! Webhook secrets: read anew at every use from the environment or a file, so that a rotated key needs no restart.
//! Their text never appears in an error, a log or a stored value.

use gates::webhook::SecretSource;
use proto::{release::WebhookSpec, signature::Secret};
use std::sync::Arc;

/// Largest secret file, bytes.
const FILE_BYTES_MAX: usize = 16 << 10;

/// Secrets by the names in a release. Several, separated by space or line, sign every notice while keys rotate.
#[must_use]
pub fn source() -> SecretSource {
    Arc::new(read)
}

fn read(webhook: &WebhookSpec) -> Result<Vec<Secret>, String> {
    let (text, named) = match (&webhook.secret_env, &webhook.secret_file) {
        (Some(name), _) => (
            std::env::var(name)
                .map_err(|_| format!("the environment variable {name} is not set; set it to a `whsec_...` secret"))?,
            format!("the environment variable {name}"),
        ),
        (None, Some(path)) => (
            std::fs::read_to_string(path).map_err(|cause| format!("the secret file {path} cannot be read: {cause}"))?,
            format!("the secret file {path}"),
        ),
        (None, None) => {
            return Err("the webhook names neither secret_env nor secret_file".to_owned());
        }
    };
    if text.len() > FILE_BYTES_MAX {
        return Err(format!(
            "{named} holds more than {FILE_BYTES_MAX} bytes; it is no secret"
        ));
    }
    let secrets: Result<Vec<Secret>, String> = text
        .split_whitespace()
        .map(|word| Secret::parse(word).map_err(|error| format!("{named}: {error}")))
        .collect();
    match secrets? {
        none if none.is_empty() => Err(format!("{named} is empty; set it to a `whsec_...` secret")),
        secrets => Ok(secrets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(text: &str) -> Result<Vec<Secret>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, text).unwrap();
        let secret_file = Some(path.display().to_string());
        read(&WebhookSpec {
            url: "http://127.0.0.1/".to_owned(),
            secret_env: None,
            secret_file,
        })
    }

    #[test]
    fn two_lines_are_two_keys() {
        let one = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        assert_eq!(of_file(&format!("{one}\n{one}\n")).unwrap().len(), 2);
        assert!(of_file(" \n").unwrap_err().contains("is empty"));
    }

    #[test]
    fn a_wrong_secret_is_named_but_not_shown() {
        let error = of_file("whsec_canary").unwrap_err();
        assert!(!error.contains("canary"), "{error}");
    }
}
