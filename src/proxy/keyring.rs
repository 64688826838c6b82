//! The keys that handles are sealed with: the same in every replica of a server, so that each opens what another
//! made, and changed under way without one that a client holds becoming void.
//!
//! A new key is mounted in all replicas, but not in all at once: it opens from the moment that it is seen, and seals
//! only when every replica must have seen it. The ones before it go on opening.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use aws_lc_rs::error::Unspecified;
use bulkhead_core::handles::Seal;
use tokio::time::Instant;

use crate::sealer::Sealer;

/// Until every kubelet has mounted a changed Secret, with a reserve: they look once a minute, at what their cache holds
/// for as long again ("Mounted Secrets are updated automatically" in Kubernetes' documentation).
pub const ADOPTION: Duration = Duration::from_mins(5);

/// Keys that open: one in the time of a change, the one that seals, and those before it.
const MOST: usize = 4;

/// The keys of one server's handles.
pub struct Keyring {
    here: String,
    keys: ArcSwapOption<Keys>,
    /// Changes are made one after the other.
    changing: Mutex<()>,
}

#[derive(Clone)]
struct Keys {
    seals: Arc<Sealer>,
    /// Newest first.
    opens: Vec<Arc<Sealer>>,
    /// What seals from then on.
    next: Option<(Arc<Sealer>, Instant)>,
}

impl Keyring {
    /// Without a key yet: nothing can be sealed or opened. `here` is how the other replicas reach this one.
    pub fn new(here: impl Into<String>) -> Self {
        Self {
            here: here.into(),
            keys: ArcSwapOption::empty(),
            changing: Mutex::default(),
        }
    }

    /// With one key from the beginning.
    pub fn of(here: impl Into<String>, secret: &[u8]) -> Result<Self, Unspecified> {
        let keyring = Self::new(here);
        keyring.learn(secret, Instant::now())?;
        Ok(keyring)
    }

    /// Whether there is a key.
    pub fn is_loaded(&self) -> bool {
        self.keys.load().is_some()
    }

    /// Takes a key in. The first seals at once, another after [`ADOPTION`].
    pub fn learn(&self, secret: &[u8], now: Instant) -> Result<(), Unspecified> {
        let sealer = Arc::new(Sealer::from_secret(secret)?);
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = match self.keys.load_full() {
            None => Keys {
                seals: Arc::clone(&sealer),
                opens: vec![sealer],
                next: None,
            },
            Some(keys) => {
                let mut keys = Keys::clone(&keys);
                keys.opens.insert(0, Arc::clone(&sealer));
                // The one that seals stays, however often the mounted one changes meanwhile.
                while keys.opens.len() > MOST {
                    let oldest = keys.opens.iter().rposition(|key| !Arc::ptr_eq(key, &keys.seals));
                    keys.opens.remove(oldest.unwrap_or(MOST));
                }
                keys.next = Some((sealer, now + ADOPTION));
                keys
            }
        };
        self.keys.store(Some(Arc::new(keys)));
        Ok(())
    }

    /// Seals with the newest key, if its time has come. Whether it came now.
    pub fn adopt(&self, now: Instant) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(keys) = self.keys.load_full() else {
            return false;
        };
        match &keys.next {
            Some((next, at)) if *at <= now => {
                self.keys.store(Some(Arc::new(Keys {
                    seals: Arc::clone(next),
                    opens: keys.opens.clone(),
                    next: None,
                })));
                true
            }
            _ => false,
        }
    }
}

impl Seal for Keyring {
    fn seal(&self, context: &[u8], text: &[u8]) -> Option<String> {
        self.keys.load().as_ref()?.seals.seal(context, text)
    }

    fn open(&self, context: &[u8], sealed: &str) -> Option<Vec<u8>> {
        self.keys
            .load()
            .as_ref()?
            .opens
            .iter()
            .find_map(|key| key.open(context, sealed))
    }

    fn here(&self) -> &str {
        &self.here
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring")
            .field("here", &self.here)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &[u8] = &[1; 32];
    const NEW: &[u8] = &[2; 32];

    fn opens(keyring: &Keyring, sealed: &str) -> bool {
        keyring.open(b"a", sealed).as_deref() == Some(b"handle")
    }

    #[test]
    fn without_a_key_nothing_is_sealed_or_opened() {
        let keyring = Keyring::new("here");
        assert!(!keyring.is_loaded());
        assert_eq!(keyring.seal(b"a", b"handle"), None);
        let sealed = Keyring::of("here", OLD).unwrap().seal(b"a", b"handle").unwrap();
        assert!(!opens(&keyring, &sealed));
        assert!(!keyring.adopt(Instant::now() + ADOPTION));
    }

    #[test]
    fn a_new_key_opens_at_once_and_seals_when_every_replica_has_it() {
        let start = Instant::now();
        let (first, second) = (Keyring::of("1", OLD).unwrap(), Keyring::of("2", OLD).unwrap());
        let old = first.seal(b"a", b"handle").unwrap();
        first.learn(NEW, start).unwrap();
        assert!(!first.adopt(start + ADOPTION - Duration::from_secs(1)));
        assert!(
            opens(&second, &first.seal(b"a", b"handle").unwrap()),
            "the second hasn't seen it yet"
        );

        second.learn(NEW, start + Duration::from_mins(2)).unwrap();
        assert!(first.adopt(start + ADOPTION));
        assert!(!first.adopt(start + ADOPTION), "once");
        let new = first.seal(b"a", b"handle").unwrap();
        assert_ne!(new, old);
        for sealed in [&old, &new] {
            assert!(opens(&first, sealed) && opens(&second, sealed));
        }
        assert!(opens(&Keyring::of("3", NEW).unwrap(), &new));
        assert!(
            !opens(&Keyring::of("3", NEW).unwrap(), &old),
            "it never had the old key"
        );
    }

    #[test]
    fn however_often_the_key_changes_what_was_just_sealed_opens() {
        let start = Instant::now();
        let keyring = Keyring::of("1", OLD).unwrap();
        let old = keyring.seal(b"a", b"handle").unwrap();
        for number in 2..20 {
            keyring.learn(&[number; 32], start).unwrap();
            assert!(opens(&keyring, &old));
        }
        assert_eq!(keyring.keys.load().as_ref().unwrap().opens.len(), MOST);
        assert!(keyring.adopt(start + ADOPTION));
        for number in 20..24 {
            keyring.learn(&[number; 32], start).unwrap();
        }
        assert!(!opens(&keyring, &old), "old keys are forgotten in the end");
    }
}
