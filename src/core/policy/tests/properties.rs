//! What holds for every policy, message and answer, whatever they say.

mod answers;
mod asks;
mod forwarded;
mod grants;
mod narrowing;

use std::collections::BTreeSet;

use proptest::prelude::*;

use self::asks::{About, Ask, PROMPTS, RESOURCES, TOOLS, asks, some_asks};
use super::*;
use crate::json::tests::json_text;

type Roles = BTreeSet<&'static str>;

const ROLES: [&str; 3] = ["a", "b", "c"];

/// What the agent of these policies may be given besides, and how a policy says it.
const FEATURES: [(&str, &str); 4] = [
    ("logging", "true"),
    ("roots", "true"),
    ("sampling", "true"),
    ("elicitation", r#"["form","url"]"#),
];

/// Rules about results, of which some have none and some only report.
const RESULTS: [&str; 4] = [
    "null",
    r#"{"owned":{"path":"$.rows","field":"tenant","equals":{"string":"acme"}}}"#,
    r#"{"owned":{"path":"$.rows","field":"tenant","equals":{"string":"acme"}},"enforcement":"report"}"#,
    r#"{"owned":{"path":"$.rows","field":"tenant","equals":{"string":"acme"}},"maxRecords":2,"maxBytes":500}"#,
];

/// A policy of one agent: which roles it has and which a thing is for. What has none isn't in the policy.
#[derive(Clone, Debug)]
struct Rules {
    agent: Roles,
    tools: Vec<Option<Roles>>,
    prompts: Vec<Option<Roles>>,
    resources: Vec<Option<Roles>>,
    features: Vec<bool>,
    /// Of the tools, then of the resources.
    results: Vec<&'static str>,
}

fn roles() -> impl Strategy<Value = Roles> {
    prop::collection::btree_set(prop::sample::select(&ROLES[..]), 0..3)
}

fn rules() -> impl Strategy<Value = Rules> {
    let things = |count| prop::collection::vec(prop::option::weighted(0.8, roles()), count);
    (
        roles(),
        things(TOOLS.len()),
        things(PROMPTS.len()),
        things(RESOURCES.len()),
        prop::collection::vec(any::<bool>(), FEATURES.len()),
        prop::collection::vec(prop::sample::select(&RESULTS[..]), TOOLS.len() + RESOURCES.len()),
    )
        .prop_map(|(agent, tools, prompts, resources, features, results)| Rules {
            agent,
            tools,
            prompts,
            resources,
            features,
            results,
        })
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

impl Rules {
    fn document(&self) -> Value {
        let callable = |name: &str, roles: &Roles| {
            json!({
                "name": name, "roles": roles, "forced": {"tenant": {"string": "acme"}},
                "bounds": {"n": {"maximum": 10}, "y": {"maximum": 5, "enforcement": "report"}},
            })
        };
        let mut document = document();
        document["agents"] =
            json!([{"name": "billing", "spiffeId": "spiffe://acme/billing", "roles": self.agent}]);
        let mut tools = Vec::new();
        for ((name, roles), results) in TOOLS.iter().zip(&self.tools).zip(&self.results) {
            let Some(roles) = roles else { continue };
            let mut tool = callable(name, roles);
            tool["results"] = parsed(results);
            tools.push(tool);
        }
        let prompts = PROMPTS.iter().zip(&self.prompts);
        let prompts = prompts.filter_map(|(name, roles)| Some(callable(name, roles.as_ref()?)));
        let mut resources = Vec::new();
        let results = self.results.iter().skip(TOOLS.len());
        for ((uri, roles), results) in RESOURCES.iter().zip(&self.resources).zip(results) {
            let Some(roles) = roles else { continue };
            let mut resource = json!({"uri": uri, "roles": roles, "results": parsed(results)});
            if uri.contains("{tenant}") {
                resource["forced"] = json!({"tenant": {"string": "acme"}});
            }
            resources.push(resource);
        }
        document["prompts"] = prompts.collect();
        document["tools"] = json!(tools);
        document["resources"] = json!(resources);
        document["clientFeatures"] = json!({});
        for ((name, granted), _) in FEATURES.iter().zip(&self.features).filter(|(_, has)| **has) {
            document["clientFeatures"][name] = parsed(granted);
        }
        document
    }

    /// Whether a rule allows what a message is about, said in another way than the policy decides it.
    fn allow(&self, about: About) -> bool {
        let granted = |roles: Option<&Option<Roles>>| {
            roles.is_some_and(|roles| roles.iter().any(|roles| !roles.is_disjoint(&self.agent)))
        };
        let named = |names: &[&str], of: &[Option<Roles>], name: &str| {
            let index = names.iter().position(|known| *known == name);
            granted(index.and_then(|index| of.get(index)))
        };
        // What a template stands for may be read where its rule filters it, and nobody is told of it.
        let told = |index: usize| {
            let results = self.results[TOOLS.len() + index];
            !RESOURCES[index].contains('{') || !results.contains("owned") || results.contains("report")
        };
        match about {
            About::Anyone => true,
            About::Nothing => false,
            About::Tool(name) => named(&TOOLS, &self.tools, name),
            About::Prompt(name) => named(&PROMPTS, &self.prompts, name),
            About::Covered { by, read } => by
                .iter()
                .find(|index| self.resources[**index].is_some())
                .is_some_and(|index| granted(self.resources.get(*index)) && (read || told(*index))),
            // The exact one before it, where others have it, could be a value.
            About::Completed(index) => {
                let is_kept =
                    |before: usize| self.resources[before].is_some() && !granted(self.resources.get(before));
                granted(self.resources.get(index)) && told(index) && !(index == 1 && is_kept(0))
            }
            About::Feature(name) => FEATURES
                .iter()
                .zip(&self.features)
                .any(|((known, _), has)| *known == name && *has),
        }
    }
}

/// Arguments with hostile spellings and the names that rules are about.
fn arguments() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        "tenant",
        "t\\\\u0065nant",
        "Tenant",
        "n",
        "N",
        "limit",
        "at",
        "[a-c]{1,2}"
    ];
    prop_oneof![
        json_text(),
        prop::collection::vec((name, json_text()), 0..4).prop_map(|members| {
            let members: Vec<_> = members
                .iter()
                .map(|(name, value)| format!("\"{name}\" :{value}"))
                .collect();
            format!("{{ {} }}", members.join(" , "))
        }),
    ]
}

proptest! {
    #[test]
    fn bounds_hold_for_whatever_goes_up(value in json_text(), modern: bool) {
        let ask = Ask::new(modern, "tools/call", &format!(r#""name":"list","arguments":{{"limit":{value}}}"#));
        prop_assume!(ask.is_readable());
        if let Ok(sent) = outcome(&ask.decided(&policy(), &Inventory::default())) {
            prop_assert!(parsed(&sent)["params"]["arguments"]["limit"].as_f64().is_some_and(|limit| limit <= 100.0));
        }
    }

    #[test]
    fn any_answer_is_decided(result in json_text(), method in prop::sample::select(&["tools/list", "tools/call", "ping"][..])) {
        let policy = policy();
        let params = if method == "tools/call" { r#"{"name":"free"}"# } else { "{}" };
        let permitted = decide(&policy, "billing", LEGACY, &request(method, params), &Inventory::default()).outcome.unwrap();
        let body = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#));
        let caller = policy.agent("spiffe://acme/billing");
        if let Answer::Final(answer) = policy.answer(caller, Channel::Answer(permitted.expected().unwrap()), &body, context(&Inventory::default())) {
            prop_assert!(serde_json::from_slice::<Value>(&answer.body).is_ok());
        }
    }
}
