//! Sealed session ids: what a client holds is not what the MCP server made.
//!
//! `Mcp-Session-Id` is a bearer handle of the legacy protocol. The client gets it encrypted and
//! bound to the agent it was made for; another agent's, a foreign one and an altered one are the
//! same to it: not found.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// Longest session id that is taken from a server. Its sealed form stays well under header limits.
const MAX_UPSTREAM_ID: usize = 1024;

/// Longest sealed id that is looked at.
const MAX_SEALED: usize = 2048;

/// Seals and opens session ids with a key that lives and dies with the process.
pub struct Sealer {
    key: LessSafeKey,
}

/// A session id that its seal opened, for the agent that presented it. Only [`Sealer::open`] makes
/// one.
#[derive(Debug, PartialEq, Eq)]
pub struct OpenSession(String);

impl OpenSession {
    /// The server's own id.
    pub fn upstream_id(&self) -> &str {
        &self.0
    }
}

/// The handle is not one that this sidecar made for this agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such session")]
pub struct NoSuchSession;

/// Sealing failed: the server's id is not one, or there is no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the MCP server's session id can't be used")]
pub struct BadSession;

impl Sealer {
    /// A sealer with a fresh key.
    pub fn new() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut bytes = [0_u8; 32];
        rand::fill(&mut bytes)?;
        Ok(Self {
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes)?),
        })
    }

    /// Seals the server's id for this agent.
    pub fn seal(&self, agent: &str, upstream: &str) -> Result<String, BadSession> {
        // Visible ASCII, by the Streamable HTTP transport's rule.
        if upstream.is_empty()
            || upstream.len() > MAX_UPSTREAM_ID
            || !upstream.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(BadSession);
        }
        let mut nonce = [0_u8; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| BadSession)?;
        let mut text = upstream.as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(agent.as_bytes()),
                &mut text,
            )
            .map_err(|_| BadSession)?;
        let mut sealed = nonce.to_vec();
        sealed.append(&mut text);
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Opens a sealed id that this agent presents.
    pub fn open(&self, agent: &str, sealed: &str) -> Result<OpenSession, NoSuchSession> {
        if sealed.len() > MAX_SEALED {
            return Err(NoSuchSession);
        }
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| NoSuchSession)?;
        let (nonce, text) = bytes.split_at_mut_checked(NONCE_LEN).ok_or(NoSuchSession)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NoSuchSession)?;
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(agent.as_bytes()), text)
            .map_err(|_| NoSuchSession)?;
        String::from_utf8(opened.to_vec())
            .map(OpenSession)
            .map_err(|_| NoSuchSession)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_opens_for_its_agent_only() {
        let sealer = Sealer::new().unwrap();
        let handle = sealer.seal("spiffe://acme/sa/billing", "abc-123").unwrap();
        assert!(!handle.contains("abc"));
        assert_eq!(
            sealer
                .open("spiffe://acme/sa/billing", &handle)
                .unwrap()
                .upstream_id(),
            "abc-123"
        );
        assert_eq!(
            sealer.open("spiffe://acme/sa/support", &handle),
            Err(NoSuchSession)
        );
        assert_eq!(
            Sealer::new().unwrap().open("spiffe://acme/sa/billing", &handle),
            Err(NoSuchSession)
        );
    }

    #[test]
    fn an_altered_or_foreign_handle_is_not_found() {
        let sealer = Sealer::new().unwrap();
        let handle = sealer.seal("a", "abc").unwrap();
        let flipped = format!(
            "{}{}",
            if handle.starts_with('A') { 'B' } else { 'A' },
            &handle[1..]
        );
        for presented in [
            "",
            "abc",
            "not base64!",
            &flipped,
            &handle[..handle.len() - 2],
            &"A".repeat(4096),
        ] {
            assert_eq!(sealer.open("a", presented), Err(NoSuchSession), "{presented}");
        }
    }

    #[test]
    fn the_same_session_is_sealed_differently_each_time() {
        let sealer = Sealer::new().unwrap();
        assert_ne!(sealer.seal("a", "abc").unwrap(), sealer.seal("a", "abc").unwrap());
    }

    #[test]
    fn a_server_s_id_must_be_short_and_visible() {
        let sealer = Sealer::new().unwrap();
        for id in ["", "a b", "a\nb", "ü", &"a".repeat(MAX_UPSTREAM_ID + 1)] {
            assert_eq!(sealer.seal("a", id), Err(BadSession));
        }
    }
}
