//! The definitions that a server is held to over restarts and in all its replicas: kept by the operator, mounted by the
//! sidecar.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Fingerprint, ProtocolVersion, inventory::Listing};

/// The format of [`Pins`] that this code reads and writes.
pub const FORMAT: u32 = 1;

/// What a server showed first, by name and version of the protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// The image of the server that the pins are of.
    pub image: String,
    tools: Pinned,
    prompts: Pinned,
}

type Pinned = BTreeMap<String, BTreeMap<ProtocolVersion, Fingerprint>>;

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    format: u32,
    image: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tools: Written,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    prompts: Written,
}

type Written = BTreeMap<String, BTreeMap<String, String>>;

/// Why a document of pins can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// Not of the shape that this code knows.
    #[error("the pins are not understood: {0}")]
    Shape(#[from] serde_json::Error),
    /// Of another format.
    #[error("the pins have format {0}, this code reads format {FORMAT}")]
    Format(u32),
    /// What should be a fingerprint isn't one.
    #[error("the pin of {0} is no fingerprint")]
    Fingerprint(String),
}

impl Pins {
    /// No pins yet, of a server of this image.
    pub fn of_image(image: &str) -> Self {
        Self {
            image: image.to_owned(),
            ..Self::default()
        }
    }

    /// The same pins, of a server of this image.
    #[must_use]
    pub fn for_image(self, image: &str) -> Self {
        Self {
            image: image.to_owned(),
            ..self
        }
    }

    /// Reads a written document. What is of a version that isn't spoken here is left out.
    pub fn from_json(json: &[u8]) -> Result<Self, PinsError> {
        let document: Document = serde_json::from_slice(json)?;
        if document.format != FORMAT {
            return Err(PinsError::Format(document.format));
        }
        Ok(Self {
            image: document.image,
            tools: read(document.tools)?,
            prompts: read(document.prompts)?,
        })
    }

    /// The document as it is mounted: compact JSON, keys in a fixed order.
    #[allow(clippy::expect_used, clippy::missing_panics_doc)]
    pub fn to_json(&self) -> String {
        let document = Document {
            format: FORMAT,
            image: self.image.clone(),
            tools: write(&self.tools),
            prompts: write(&self.prompts),
        };
        serde_json::to_string(&document).expect("the document has string keys only and must serialize")
    }

    /// What the server is held to, of one of its tools or prompts.
    pub fn get(&self, listing: Listing, name: &str, version: ProtocolVersion) -> Option<Fingerprint> {
        self.pinned(listing)?.get(name)?.get(&version).copied()
    }

    /// Pins a definition, unless there is one already. Resources have none.
    pub fn pin(&mut self, listing: Listing, name: &str, version: ProtocolVersion, definition: Fingerprint) {
        let pinned = match listing {
            Listing::Tools => &mut self.tools,
            Listing::Prompts => &mut self.prompts,
            Listing::Resources | Listing::Templates => return,
        };
        let versions = pinned.entry(name.to_owned()).or_default();
        versions.entry(version).or_insert(definition);
    }

    /// Keeps the pins of these tools and prompts, and drops the rest.
    pub fn retain(&mut self, keep: impl Fn(Listing, &str) -> bool) {
        self.tools.retain(|name, _| keep(Listing::Tools, name));
        self.prompts.retain(|name, _| keep(Listing::Prompts, name));
    }

    /// How many tools and prompts have pins.
    pub fn len(&self) -> usize {
        self.tools.len() + self.prompts.len()
    }

    /// Whether nothing is pinned.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stands for all of them: the same pins have the same.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.clone().for_image("").to_json())
    }

    fn pinned(&self, listing: Listing) -> Option<&Pinned> {
        match listing {
            Listing::Tools => Some(&self.tools),
            Listing::Prompts => Some(&self.prompts),
            Listing::Resources | Listing::Templates => None,
        }
    }
}

fn read(written: Written) -> Result<Pinned, PinsError> {
    let mut pinned = Pinned::new();
    for (name, versions) in written {
        for (version, definition) in versions {
            let Some(version) = ProtocolVersion::parse(&version) else {
                continue;
            };
            let definition =
                Fingerprint::parse(&definition).ok_or_else(|| PinsError::Fingerprint(name.clone()))?;
            pinned
                .entry(name.clone())
                .or_default()
                .insert(version, definition);
        }
    }
    Ok(pinned)
}

fn write(pinned: &Pinned) -> Written {
    let versions = |versions: &BTreeMap<ProtocolVersion, Fingerprint>| {
        let written = versions
            .iter()
            .map(|(version, definition)| (version.as_str().to_owned(), definition.to_string()));
        written.collect()
    };
    pinned
        .iter()
        .map(|(name, of)| (name.clone(), versions(of)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: ProtocolVersion = ProtocolVersion::V20251125;
    const NEW: ProtocolVersion = ProtocolVersion::V20260728;

    #[test]
    fn what_is_pinned_stays_and_is_read_back_as_written() {
        let (one, other) = (Fingerprint::of("1"), Fingerprint::of("2"));
        let mut pins = Pins::of_image("crm:1");
        assert!(pins.is_empty());
        for (listing, version, definition) in [
            (Listing::Tools, OLD, one),
            (Listing::Tools, OLD, other),
            (Listing::Tools, NEW, other),
            (Listing::Prompts, OLD, other),
            (Listing::Resources, OLD, other),
        ] {
            pins.pin(listing, "a", version, definition);
        }
        assert_eq!(pins.get(Listing::Tools, "a", OLD), Some(one));
        assert_eq!(pins.get(Listing::Tools, "a", NEW), Some(other));
        assert_eq!(pins.get(Listing::Prompts, "a", NEW), None);
        assert_eq!(pins.get(Listing::Resources, "a", OLD), None);
        let read = Pins::from_json(pins.to_json().as_bytes()).unwrap();
        assert_eq!(read, pins);
        let moved = pins.clone().for_image("crm:2");
        assert_eq!(moved.fingerprint(), pins.fingerprint());
        pins.retain(|listing, _| listing == Listing::Prompts);
        assert_eq!(pins.len(), 1);
        assert_ne!(moved.fingerprint(), pins.fingerprint());
    }

    #[test]
    fn a_document_of_a_newer_release_is_read_as_far_as_it_is_known_and_no_other() {
        let definition = Fingerprint::of("1");
        let newer = format!(
            r#"{{"format":1,"image":"crm","tools":{{"a":{{"2031-01-01":"{definition}","2025-11-25":"{definition}"}}}}}}"#
        );
        let read = Pins::from_json(newer.as_bytes()).unwrap();
        assert_eq!(read.get(Listing::Tools, "a", OLD), Some(definition));
        for bad in [
            r"{}",
            r#"{"format":2,"image":"crm"}"#,
            r#"{"format":1,"image":"crm","more":1}"#,
            r#"{"format":1,"image":"crm","tools":{"a":{"2025-11-25":"sha256:0"}}}"#,
        ] {
            assert!(Pins::from_json(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
