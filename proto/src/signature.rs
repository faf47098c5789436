//! Signatures of Standard Webhooks 1.0.0: what proves to a gateway that a notice is ours.
//!
//! Signed is `id.timestamp.body`; the signature is `v1,` + base64(HMAC-SHA256). A secret is `whsec_` + base64 of 24 to
//! 64 bytes. Source: the Standard Webhooks specification, sections "Signature scheme" and "Verifying".

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use subtle::ConstantTimeEq;

/// How far a receiver lets `webhook-timestamp` differ from its own clock, seconds.
pub const TOLERANCE_SECS: i64 = 300;
/// Header of the notice's id: the same on every attempt.
pub const HEADER_ID: &str = "webhook-id";
/// Header of the attempt's time, unix seconds.
pub const HEADER_TIMESTAMP: &str = "webhook-timestamp";
/// Header of the signatures, separated by spaces so that keys can rotate.
pub const HEADER_SIGNATURE: &str = "webhook-signature";

/// A webhook secret. Never printed: `Debug` shows only that there is one.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a secret or a signature was refused. Says nothing of the secret itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not `whsec_` and base64.
    #[error("a webhook secret is `whsec_` followed by base64 of 24 to 64 random bytes")]
    BadSecret,
    /// Timestamp unreadable or too far from now.
    #[error("the webhook timestamp is missing, unreadable or more than {TOLERANCE_SECS} s from now")]
    BadTimestamp,
    /// No signature matches.
    #[error("no signature matches: the body was changed, or the secret is another one")]
    NoMatch,
}

impl Secret {
    /// Reads `whsec_...`.
    ///
    /// # Errors
    /// [`SignatureError::BadSecret`] if the prefix, the base64 or the length (24 to 64 bytes) is wrong.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let encoded = text.trim().strip_prefix("whsec_").ok_or(SignatureError::BadSecret)?;
        let key = STANDARD.decode(encoded).map_err(|_| SignatureError::BadSecret)?;
        if (24..=64).contains(&key.len()) {
            Ok(Self(key))
        } else {
            Err(SignatureError::BadSecret)
        }
    }

    /// From raw key bytes (24 to 64).
    ///
    /// # Errors
    /// [`SignatureError::BadSecret`] if the length is wrong.
    pub fn from_bytes(key: Vec<u8>) -> Result<Self, SignatureError> {
        if (24..=64).contains(&key.len()) {
            Ok(Self(key))
        } else {
            Err(SignatureError::BadSecret)
        }
    }

    /// The `whsec_` form, for handing to a receiver. The one place where a secret becomes text.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("whsec_{}", STANDARD.encode(&self.0))
    }

    fn mac(&self, id: &str, timestamp: i64, body: &[u8]) -> [u8; 32] {
        // HMAC takes keys of any length, so this cannot fail; an empty tag would match nothing.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            return [0; 32];
        };
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        mac.finalize().into_bytes().into()
    }

    /// One `v1,...` signature; `timestamp` in unix seconds.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(self.mac(id, timestamp, body)))
    }

    /// Checks the three headers against the raw body.
    ///
    /// # Errors
    /// [`SignatureError::BadTimestamp`] if the timestamp differs from `now` (unix seconds) by more than
    /// [`TOLERANCE_SECS`]; [`SignatureError::NoMatch`] if no listed signature is ours.
    pub fn verify(
        &self,
        id: &str,
        timestamp: &str,
        signatures: &str,
        body: &[u8],
        now: i64,
    ) -> Result<(), SignatureError> {
        let at: i64 = timestamp.trim().parse().map_err(|_| SignatureError::BadTimestamp)?;
        if at.abs_diff(now) > TOLERANCE_SECS.unsigned_abs() {
            return Err(SignatureError::BadTimestamp);
        }
        let expected = self.mac(id, at, body);
        let matches = signatures
            .split_ascii_whitespace()
            .filter_map(|s| s.strip_prefix("v1,"))
            .filter_map(|s| STANDARD.decode(s).ok())
            .any(|tag| bool::from(tag.as_slice().ct_eq(&expected)));
        if matches { Ok(()) } else { Err(SignatureError::NoMatch) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    const AT: i64 = 1_649_367_553;
    const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;

    #[test]
    fn the_published_vector_holds() {
        let s = Secret::parse(SECRET).unwrap();
        assert_eq!(s.sign(ID, AT, BODY), "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    }

    #[test]
    fn the_reference_library_signs_alike() {
        let oracle = standardwebhooks::Webhook::new(SECRET).unwrap();
        let ours = Secret::parse(SECRET).unwrap();
        for body in ["", "{}", "{\"text\":\"snow \u{2603}\"}"] {
            assert_eq!(
                ours.sign("msg_1", AT, body.as_bytes()),
                oracle.sign("msg_1", AT, body.as_bytes()).unwrap()
            );
        }
    }

    #[test]
    fn a_rotated_key_verifies_and_a_changed_body_does_not() {
        let s = Secret::parse(SECRET).unwrap();
        let other = Secret::from_bytes(vec![7; 32]).unwrap();
        let both = format!("{} {}", other.sign(ID, AT, BODY), s.sign(ID, AT, BODY));
        let at = AT.to_string();
        assert_eq!(s.verify(ID, &at, &both, BODY, AT + 200), Ok(()));
        assert_eq!(s.verify(ID, &at, &both, b"{}", AT), Err(SignatureError::NoMatch));
        assert_eq!(
            s.verify(ID, &at, &both, BODY, AT + 301),
            Err(SignatureError::BadTimestamp)
        );
        assert_eq!(s.verify(ID, "soon", &both, BODY, AT), Err(SignatureError::BadTimestamp));
    }

    #[test]
    fn short_secrets_are_refused_and_secrets_are_not_printed() {
        assert_eq!(Secret::parse("whsec_aGVsbG8=").unwrap_err(), SignatureError::BadSecret);
        assert_eq!(Secret::parse("hello").unwrap_err(), SignatureError::BadSecret);
        assert_eq!(format!("{:?}", Secret::parse(SECRET).unwrap()), "Secret(..)");
    }
}
