//! What goes up is what some rule allows.

use super::{asks::told_of, *};

proptest! {
    #[test]
    fn a_permit_means_that_a_rule_allowed_it(rules in rules(), modern: bool) {
        let policy = compile(&rules.document());
        for ask in asks(modern) {
            let decision = ask.decided(&policy, &Inventory::default());
            // The arguments are good for the rules that there are.
            prop_assert_eq!(outcome(&decision).is_ok(), rules.allow(ask.about), "{:?} {:?}", ask, decision);
            prop_assert!(decision.outcome.is_err() || decision.rule.is_some(), "{:?}", ask);
            if ask.method == "subscriptions/listen" && modern {
                let sent = parsed(&outcome(&decision).unwrap());
                prop_assert_eq!(&sent["params"]["notifications"]["resourceSubscriptions"], &json!(told_of(&rules)));
            }
        }
    }

    #[test]
    fn nothing_goes_up_for_an_agent_that_is_unknown(rules in rules(), modern: bool) {
        let policy = compile(&rules.document());
        for ask in asks(modern) {
            let headers: Vec<_> = ask.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let decision = decide(&policy, "Billing", &headers, &ask.body, &Inventory::default());
            prop_assert_eq!(outcome(&decision), Err(Reason::AgentUnknown), "{:?}", ask);
        }
    }
}
