//! What goes up is what some rule allows.

use super::{asks::told_of, *};

proptest! {
    #[test]
    fn a_permit_means_that_a_rule_allowed_it(rules in rules(), asks in some_asks()) {
        let policy = compile(&rules.document());
        for ask in asks {
            let decision = ask.decided(&policy, &Inventory::default());
            // The arguments are good for the rules that there are.
            prop_assert_eq!(outcome(&decision).is_ok(), rules.allow(ask.about), "{:?} {:?}", ask, decision);
            let headers: Vec<_> = ask.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let unknown = decide(&policy, "Billing", &headers, &ask.body, &Inventory::default());
            prop_assert_eq!(outcome(&unknown), Err(Reason::AgentUnknown), "{:?}", ask);
            prop_assert!(decision.outcome.is_err() || decision.rule.is_some(), "{:?}", ask);
            if ask.method == "subscriptions/listen" && ask.modern {
                let sent = parsed(&outcome(&decision).unwrap());
                prop_assert_eq!(&sent["params"]["notifications"]["resourceSubscriptions"], &json!(told_of(&rules)));
            }
        }
    }
}
