//! What a sidecar says is in force, read and bounded.

use bulkhead_api::tenant::OfferKind;
use bulkhead_control::{Definition, Kind, MAX_ENTRIES, MAX_FIRST, SidecarReport};
use bulkhead_core::mcp::{Fingerprint, ProtocolVersion, inventory::Listing};

/// Longest reason code, and longest name of a tool, prompt or issuer; longest path of a rule.
const MAX_REASON: usize = 64;
pub(super) const MAX_NAME: usize = 256;
const MAX_RULE: usize = 640;

/// Issuers that a report may name: as many as a tenant has.
const MAX_ISSUERS: usize = 16;

/// What is in force in a sidecar, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// Revision of its policy; empty when it has none.
    pub policy_revision: String,
    /// Issuers of persons whose tokens it can't verify, by name.
    pub issuers_without_keys: Vec<String>,
    /// Whether its forbidden address was refused when it was dialled last.
    pub network_closed: bool,
    /// Whether it knows the server's lists.
    pub inventory_taken: bool,
    /// What the server shows and nobody is offered.
    pub withheld: Vec<Withheld>,
    /// How many more there are.
    pub withheld_beyond: u32,
    /// What the server showed first and is not pinned here.
    pub first: Vec<Shown>,
    /// Rules that only report, and why they would have refused: (path, reason).
    pub reported: Vec<(String, String)>,
}

/// A tool or prompt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offer {
    /// Which of the two.
    pub kind: OfferKind,
    /// Its name.
    pub name: String,
}

impl Offer {
    /// The list that it is in.
    pub fn listing(&self) -> Listing {
        match self.kind {
            OfferKind::Tool => Listing::Tools,
            OfferKind::Prompt => Listing::Prompts,
        }
    }
}

/// What a server showed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// Of what.
    pub offer: Offer,
    /// In which version of the protocol.
    pub version: ProtocolVersion,
    /// The definition.
    pub definition: Fingerprint,
}

/// A definition that is not offered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Withheld {
    /// Of what.
    pub offer: Offer,
    /// In which version of the protocol.
    pub version: ProtocolVersion,
    /// What the server shows.
    pub definition: Fingerprint,
    /// Why it is not offered.
    pub reason: String,
}

impl InForce {
    /// Reads a report. `None`: no sidecar would make it. What only a newer sidecar knows is left out.
    pub fn read(report: SidecarReport) -> Option<Self> {
        let fits = report.withheld.len() <= MAX_ENTRIES
            && report.reported.len() <= MAX_ENTRIES
            && report.first.len() <= MAX_FIRST
            && report.first.iter().all(|entry| is_text(&entry.name, MAX_NAME))
            && report.issuers_without_keys.len() <= MAX_ISSUERS
            && report.policy_revision.len() <= 16
            && report
                .policy_revision
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit())
            && report
                .issuers_without_keys
                .iter()
                .all(|name| is_text(name, MAX_NAME))
            && report
                .withheld
                .iter()
                .all(|entry| is_text(&entry.name, MAX_NAME) && is_reason(&entry.reason))
            && report
                .reported
                .iter()
                .all(|entry| is_text(&entry.rule, MAX_RULE) && is_reason(&entry.reason));
        fits.then(|| Self {
            policy_revision: report.policy_revision,
            issuers_without_keys: report.issuers_without_keys,
            network_closed: report.network_closed,
            inventory_taken: report.inventory_taken,
            withheld: report.withheld.into_iter().filter_map(withheld).collect(),
            withheld_beyond: report.withheld_beyond,
            first: report.first.into_iter().filter_map(first).collect(),
            reported: report
                .reported
                .into_iter()
                .map(|entry| (entry.rule, entry.reason))
                .collect(),
        })
    }
}

fn offer(kind: i32, name: String) -> Option<Offer> {
    let kind = match Kind::try_from(kind).ok()? {
        Kind::Tool => OfferKind::Tool,
        Kind::Prompt => OfferKind::Prompt,
        Kind::Unspecified => return None,
    };
    Some(Offer { kind, name })
}

fn first(entry: Definition) -> Option<Shown> {
    Some(Shown {
        offer: offer(entry.kind, entry.name)?,
        version: ProtocolVersion::parse(&entry.protocol_version)?,
        definition: Fingerprint::parse(&entry.definition)?,
    })
}

fn withheld(entry: bulkhead_control::Withheld) -> Option<Withheld> {
    Some(Withheld {
        offer: offer(entry.kind, entry.name)?,
        version: ProtocolVersion::parse(&entry.protocol_version)?,
        definition: Fingerprint::parse(&entry.definition)?,
        reason: entry.reason,
    })
}

pub(super) fn is_text(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control)
}

fn is_reason(text: &str) -> bool {
    let is_code = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !text.is_empty() && text.len() <= MAX_REASON && text.bytes().all(is_code)
}

#[cfg(test)]
mod tests {
    use bulkhead_control::{Reported, Withheld as Entry};

    use super::*;

    fn entry() -> Entry {
        Entry {
            kind: Kind::Tool.into(),
            name: "search".into(),
            reason: "definition_changed".into(),
            protocol_version: "2025-11-25".into(),
            definition: format!("sha256:{}", "0".repeat(64)),
        }
    }

    #[test]
    fn a_report_is_taken_and_what_only_a_newer_sidecar_knows_is_left_out() {
        let newer = [
            Entry { kind: 9, ..entry() },
            Entry {
                protocol_version: "2031-01-01".into(),
                ..entry()
            },
        ];
        let report = SidecarReport {
            policy_revision: "0123456789abcdef".into(),
            withheld: newer.into_iter().chain([entry()]).collect(),
            ..SidecarReport::default()
        };
        let read = InForce::read(report).unwrap();
        assert_eq!(read.withheld.len(), 1);
        assert_eq!(read.withheld[0].offer.name, "search");
        assert_eq!(InForce::read(SidecarReport::default()), Some(InForce::default()));
    }

    #[test]
    fn what_no_sidecar_would_say_is_refused() {
        type Change = fn(&mut SidecarReport);
        let changes: [Change; 11] = [
            |report| report.policy_revision = "not hex".into(),
            |report| report.policy_revision = "0".repeat(17),
            |report| report.issuers_without_keys = vec!["corp".into(); MAX_ISSUERS + 1],
            |report| report.issuers_without_keys = vec!["a\nb".into()],
            |report| report.withheld = vec![entry(); MAX_ENTRIES + 1],
            |report| report.withheld[0].name = "n".repeat(MAX_NAME + 1),
            |report| report.withheld[0].name = String::new(),
            |report| report.first = vec![Definition::default(); MAX_FIRST + 1],
            |report| report.first = vec![Definition::default()],
            |report| report.withheld[0].reason = "Sentences, even".into(),
            |report| {
                report.reported = vec![Reported {
                    rule: "\u{1b}[31m".into(),
                    reason: "records_foreign".into(),
                }];
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut report = SidecarReport {
                withheld: vec![entry()],
                ..SidecarReport::default()
            };
            assert!(InForce::read(report.clone()).is_some());
            change(&mut report);
            assert_eq!(InForce::read(report), None, "change {number}");
        }
    }
}
