//! What each server is held to: what was pinned before, and what its sidecars say that it showed first.

use bulkhead_api::tenant::OnImageChange;
use bulkhead_core::mcp::{Pins, inventory::Listing};

use super::Observed;
use crate::validate::Server;

/// The pins of a server.
///
/// The first definition that anybody tells is the one: a replica that saw another is held to it as well. There are none of
/// what the policy doesn't name, and none where the tenant names the definitions itself: so what is accepted and later no
/// longer named is pinned as it is then.
pub fn pins(server: &Server, observed: &Observed) -> Pins {
    let held = observed.pins.get(server.name.as_str());
    let mut pins = match held {
        Some(held) if held.image == server.image || server.on_image_change == OnImageChange::Hold => {
            held.clone().for_image(&server.image)
        }
        _ => Pins::of_image(&server.image),
    };
    let is_pinned = |listing, name: &str| {
        let callables = match listing {
            Listing::Tools => &server.offers.tools,
            Listing::Prompts => &server.offers.prompts,
            Listing::Resources | Listing::Templates => return false,
        };
        callables
            .iter()
            .any(|callable| callable.name == name && callable.definitions.is_empty())
    };
    pins.retain(is_pinned);
    for shown in observed.shown.get(server.name.as_str()).into_iter().flatten() {
        let listing = shown.offer.listing();
        if is_pinned(listing, &shown.offer.name) {
            pins.pin(listing, &shown.offer.name, shown.version, shown.definition);
        }
    }
    pins
}

#[cfg(test)]
mod tests {
    use bulkhead_api::tenant::OfferKind;
    use bulkhead_core::mcp::{Fingerprint, ProtocolVersion};

    use super::*;
    use crate::{
        build::fixture,
        control::{Offer, Shown},
        validate::ValidatedTenant,
    };

    const VERSION: ProtocolVersion = ProtocolVersion::V20251125;

    fn tenant(change: impl FnOnce(&mut serde_json::Value)) -> ValidatedTenant {
        let mut tenant = fixture::tenant();
        change(&mut tenant["spec"]["servers"][0]);
        fixture::validated(tenant, &fixture::settings(), &fixture::observed())
    }

    fn shown(name: &str, definition: &str) -> Shown {
        Shown {
            offer: Offer {
                kind: OfferKind::Tool,
                name: name.into(),
            },
            version: VERSION,
            definition: Fingerprint::of(definition),
        }
    }

    #[test]
    fn the_first_that_is_told_is_pinned_and_outlives_the_image_unless_the_tenant_says_otherwise() {
        let plain = tenant(|_| {});
        let server = &plain.servers[0];
        let names: Vec<_> = server.offers.tools.iter().map(|tool| tool.name.clone()).collect();
        let free = server
            .offers
            .tools
            .iter()
            .position(|tool| tool.definitions.is_empty())
            .unwrap();
        let name = names[free].as_str();
        let told = |told: Vec<Shown>, pins: Option<Pins>| Observed {
            pins: pins
                .map(|pins| (server.name.to_string(), pins))
                .into_iter()
                .collect(),
            shown: [(server.name.to_string(), told)].into(),
            ..fixture::observed()
        };
        let pin = |pins: &Pins, name: &str| pins.get(Listing::Tools, name, VERSION);
        let (one, other) = (Fingerprint::of("1"), Fingerprint::of("2"));

        let first = pins(
            server,
            &told(
                vec![shown(name, "1"), shown(name, "2"), shown("no tool", "1")],
                None,
            ),
        );
        assert_eq!((pin(&first, name), pin(&first, "no tool")), (Some(one), None));
        assert_eq!(first.image, server.image);
        let again = pins(server, &told(vec![shown(name, "2")], Some(first.clone())));
        assert_eq!(again, first);

        let old = first.clone().for_image("another");
        assert_eq!(
            pins(server, &told(vec![shown(name, "2")], Some(old.clone()))),
            first
        );
        let accepting = tenant(|server| server["pinning"] = serde_json::json!({"onImageChange": "Accept"}));
        let accepting = &accepting.servers[0];
        let anew = pins(accepting, &told(vec![shown(name, "2")], Some(old)));
        assert_eq!(pin(&anew, name), Some(other));
        assert_eq!(
            pin(
                &pins(accepting, &told(vec![shown(name, "2")], Some(first.clone()))),
                name
            ),
            Some(one)
        );

        // What the tenant names itself is pinned by nobody else.
        let naming = tenant(|server| {
            server["tools"][free]["definitions"] = serde_json::json!([other.to_string()]);
        });
        let accepted = pins(&naming.servers[0], &told(vec![shown(name, "1")], Some(first)));
        assert_eq!(pin(&accepted, name), None);
    }
}
