//! What is in force in this sidecar, as the operator is told.

use bulkhead_control::{Definition, Kind, MAX_ENTRIES, MAX_FIRST, Reported, SidecarReport, Withheld};
use bulkhead_core::{mcp::inventory::Listing, policy::Unoffered};

use crate::shared::Shared;

/// The report of this moment.
pub fn report(shared: &Shared) -> SidecarReport {
    let mut report = SidecarReport {
        network_closed: shared.readiness.network_is_closed(),
        inventory_taken: shared.readiness.has_inventory(),
        ..SidecarReport::default()
    };
    let Some(policy) = shared.live.policy() else {
        return report;
    };
    let compiled = policy.compiled();
    policy.revision().clone_into(&mut report.policy_revision);
    let keys = shared.live.token_keys();
    report.issuers_without_keys = compiled
        .issuers()
        .into_iter()
        .filter(|issuer| !keys.as_ref().is_some_and(|keys| keys.verify(issuer)))
        .filter_map(|issuer| Some(compiled.issuer_of(issuer)?.name.clone()))
        .collect();
    let inventory = shared.live.inventory();
    let of = |kind, unoffered: Vec<Unoffered<'_>>| -> Vec<Withheld> {
        unoffered
            .into_iter()
            .map(|unoffered| withheld(kind, &unoffered))
            .collect()
    };
    report.withheld = of(Kind::Tool, compiled.unoffered(&inventory, Listing::Tools));
    report
        .withheld
        .extend(of(Kind::Prompt, compiled.unoffered(&inventory, Listing::Prompts)));
    for (kind, listing) in [(Kind::Tool, Listing::Tools), (Kind::Prompt, Listing::Prompts)] {
        let unpinned = compiled.unpinned(&inventory, listing);
        let first = unpinned
            .into_iter()
            .map(|(name, version, definition)| Definition {
                kind: kind.into(),
                name: name.to_owned(),
                protocol_version: version.as_str().to_owned(),
                definition: definition.to_string(),
            });
        report.first.extend(first);
    }
    report.first.truncate(MAX_FIRST);
    let beyond = report.withheld.len().saturating_sub(MAX_ENTRIES);
    report.withheld_beyond = u32::try_from(beyond).unwrap_or(u32::MAX);
    report.withheld.truncate(MAX_ENTRIES);
    report.reported = shared
        .findings
        .of(policy.revision())
        .into_iter()
        .map(|(rule, reason)| Reported {
            rule: rule.to_string(),
            reason: reason.as_str().to_owned(),
        })
        .collect();
    report
}

fn withheld(kind: Kind, unoffered: &Unoffered<'_>) -> Withheld {
    Withheld {
        kind: kind.into(),
        name: unoffered.name.to_owned(),
        reason: unoffered.reason.as_str().to_owned(),
        protocol_version: unoffered.version.as_str().to_owned(),
        definition: unoffered.definition.to_string(),
    }
}
