//! Sealed handles: what a client holds is not what the MCP server made.
//!
//! A handle is encrypted and bound to what it was made for, see [`bulkhead_core::handles`]; another
//! agent's, a foreign one and an altered one are the same: not found. Equal handles are sealed
//! equally, so that a client can compare them and a cancelled request has the id that it was asked
//! under. The nonce is therefore made of what is sealed, under a key of its own, and the cipher is
//! one that a repeated nonce doesn't break (AES-256-GCM-SIV, RFC 8452).

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    error::Unspecified,
    hkdf, hmac,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bulkhead_core::handles::{Handle, Handles, Kind, Opened, Replica};

/// Longest sealed handle that is looked at, in characters: one of [`bulkhead_core::handles::MAX_TEXT`] bytes is.
const MAX_SEALED: usize = 128 * 1024;

/// Seals and opens handles with one key.
pub struct Sealer {
    cipher: LessSafeKey,
    nonces: hmac::Key,
}

/// A session that its seal opened, for the agent that presented it.
#[derive(Debug, PartialEq, Eq)]
pub struct OpenSession {
    upstream: String,
    elsewhere: Option<Replica>,
}

impl OpenSession {
    /// Opens a sealed session id.
    pub fn open(handles: Handles<'_>, sealed: &str) -> Option<Self> {
        let Opened { handle, elsewhere } = handles.open(Kind::Session, sealed)?;
        match handle {
            Handle::Session(upstream) => Some(Self { upstream, elsewhere }),
            _ => None,
        }
    }

    /// The server's own id.
    pub fn upstream_id(&self) -> &str {
        &self.upstream
    }

    /// The replica that the session lives in, when it isn't this one.
    pub fn elsewhere(&self) -> Option<&Replica> {
        self.elsewhere.as_ref()
    }
}

/// An event id that its seal opened, for the agent and the session that presented it: where a stream
/// is taken up again.
#[derive(Debug)]
pub struct OpenEvent {
    upstream: String,
    /// The answer that the stream carries, if any.
    pub expected: Option<bulkhead_core::policy::Expected>,
    /// The number of the call that is answered.
    pub call: u64,
    /// The start of the sidecar that numbered it.
    pub run: u64,
}

impl OpenEvent {
    /// Opens a sealed event id.
    pub fn open(handles: Handles<'_>, sealed: &str) -> Option<Self> {
        match handles.open(Kind::Event, sealed)?.handle {
            Handle::Event {
                id,
                expected,
                call,
                run,
            } => Some(Self {
                upstream: id,
                expected,
                call,
                run,
            }),
            _ => None,
        }
    }

    /// The server's own id.
    pub fn upstream_id(&self) -> &str {
        &self.upstream
    }
}

/// Seals a session id of the server. It must be visible ASCII, by the Streamable HTTP transport's
/// rule.
pub fn seal_session(handles: Handles<'_>, upstream: &str) -> Option<String> {
    if upstream.bytes().all(|byte| byte.is_ascii_graphic()) {
        handles.seal(&Handle::Session(upstream.to_owned()))
    } else {
        None
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Sealer {
    /// A sealer with keys made of a secret that nobody can guess: what one seals, another of the same
    /// secret opens.
    pub fn from_secret(secret: &[u8]) -> Result<Self, Unspecified> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"bulkhead handles").extract(secret);
        let derive = |info: &[u8]| {
            let mut key = [0_u8; 32];
            secret.expand(&[info], Length(32))?.fill(&mut key)?;
            Ok::<_, Unspecified>(key)
        };
        Ok(Self {
            cipher: LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &derive(b"cipher")?)?),
            nonces: hmac::Key::new(hmac::HMAC_SHA256, &derive(b"nonces")?),
        })
    }

    fn nonce(&self, context: &[u8], text: &[u8]) -> [u8; NONCE_LEN] {
        let mut digest = hmac::Context::with_key(&self.nonces);
        digest.update(&(context.len() as u64).to_be_bytes());
        digest.update(context);
        digest.update(text);
        let tag = digest.sign();
        let mut nonce = [0_u8; NONCE_LEN];
        nonce.copy_from_slice(&tag.as_ref()[..NONCE_LEN]);
        nonce
    }

    /// Seals `text`, so that it opens with the same `context` only.
    pub fn seal(&self, context: &[u8], text: &[u8]) -> Option<String> {
        let nonce = self.nonce(context, text);
        let mut sealed = text.to_vec();
        self.cipher
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut sealed,
            )
            .ok()?;
        let mut bytes = nonce.to_vec();
        bytes.append(&mut sealed);
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Opens what was sealed with the same secret and context.
    pub fn open(&self, context: &[u8], sealed: &str) -> Option<Vec<u8>> {
        if sealed.len() > MAX_SEALED {
            return None;
        }
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, text) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let opened = self.cipher.open_in_place(nonce, Aad::from(context), text).ok()?;
        Some(opened.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_core::handles::MAX_TEXT;

    use super::*;
    use crate::keyring::Keyring;

    fn sealer() -> Sealer {
        let mut secret = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut secret).unwrap();
        Sealer::from_secret(&secret).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_in_its_context_with_its_key_only() {
        let (sealer, other) = (sealer(), sealer());
        let handle = sealer.seal(b"billing", b"abc-123").unwrap();
        assert_eq!(sealer.open(b"billing", &handle).as_deref(), Some(&b"abc-123"[..]));
        assert_eq!(sealer.open(b"support", &handle), None);
        assert_eq!(other.open(b"billing", &handle), None);
    }

    #[test]
    fn an_altered_or_foreign_handle_does_not_open() {
        let sealer = sealer();
        let handle = sealer.seal(b"a", b"abc").unwrap();
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
            &"A".repeat(MAX_SEALED + 1),
        ] {
            assert_eq!(sealer.open(b"a", presented), None);
        }
    }

    #[test]
    fn the_longest_text_is_opened() {
        let (sealer, longest) = (sealer(), vec![b'x'; MAX_TEXT]);
        let handle = sealer.seal(b"a", &longest).unwrap();
        assert_eq!(sealer.open(b"a", &handle).unwrap(), longest);
    }

    #[test]
    fn equal_handles_are_sealed_equally_and_others_are_not() {
        let sealer = sealer();
        let handle = sealer.seal(b"a", b"bc").unwrap();
        assert_eq!(sealer.seal(b"a", b"bc").unwrap(), handle);
        let nonce = |handle: &str| handle[..16].to_owned();
        for (context, text) in [(&b"a"[..], &b"bd"[..]), (b"b", b"bc"), (b"ab", b"c")] {
            assert_ne!(nonce(&sealer.seal(context, text).unwrap()), nonce(&handle));
        }
    }

    #[test]
    fn a_session_id_is_visible() {
        let keyring = Keyring::of("10.1.2.3:8446", &[7; 32]).unwrap();
        let handles = Handles::new(&keyring, "spiffe://acme/billing", None);
        let handle = seal_session(handles, "abc-123").unwrap();
        assert!(!handle.contains("abc"));
        let opened = OpenSession::open(handles, &handle).unwrap();
        assert_eq!(opened.upstream_id(), "abc-123");
        for id in ["", "a b", "a\nb", "ü"] {
            assert_eq!(seal_session(handles, id), None, "{id:?}");
        }
    }
}
