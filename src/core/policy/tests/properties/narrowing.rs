//! A policy that denies more permits nothing more, tells of nothing more and asks for nothing more.

use super::{
    answers::{EVENTS, held, said, told},
    *,
};
use crate::handles::Handle;

/// Members of a thing, by the way to them, and their new values.
type Sets = &'static [(&'static [&'static str], &'static str)];

const OWNED: &str = r#"{"path":"$.rows","field":"tenant","equals":{"string":"acme"}}"#;

/// What is added to the rules of tools and prompts, arguments that it denies, and arguments that it doesn't.
const ARGUMENTS: [(Sets, &str, &str); 9] = [
    (&[(&["forbidden"], r#"["x"]"#)], r#"{"x":null}"#, r#"{"n":1}"#),
    (
        &[(&["bounds", "x"], r#"{"maxLength":2}"#)],
        r#"{"x":"abc"}"#,
        r#"{"x":"ab"}"#,
    ),
    (&[(&["bounds", "x"], r#"{"required":true}"#)], "{}", r#"{"x":0}"#),
    (
        &[(&["bounds", "x"], r#"{"pattern":"b.*"}"#)],
        r#"{"x":"ab"}"#,
        r#"{"x":"ba"}"#,
    ),
    (
        &[(&["bounds", "x"], r#"{"enum":["b"]}"#)],
        r#"{"x":"a"}"#,
        r#"{"x":"b"}"#,
    ),
    (
        &[(&["bounds", "n", "maximum"], "3")],
        r#"{"n":3.1}"#,
        r#"{"n":3.0}"#,
    ),
    (&[(&["bounds", "n", "minimum"], "5")], r#"{"n":4}"#, r#"{"n":5}"#),
    (
        &[(&["bounds", "n", "required"], "true")],
        r#"{"y":1}"#,
        r#"{"n":-1}"#,
    ),
    (
        &[(&["bounds", "y", "enforcement"], r#""enforce""#)],
        r#"{"y":9}"#,
        r#"{"y":5}"#,
    ),
];

/// What is added to the rules of tools and resources about what comes back.
const RETURNED: [Sets; 5] = [
    &[(&["results", "owned"], OWNED)],
    &[(&["results", "owned"], OWNED), (&["results", "maxRecords"], "1")],
    &[(&["results", "maxBytes"], "200")],
    &[
        (&["results", "owned"], OWNED),
        (&["results", "enforcement"], r#""enforce""#),
    ],
    &[(
        &["results", "owned"],
        r#"{"path":"$.rows","field":"tenant","equals":{"agent":"nothing"}}"#,
    )],
];

/// Something that is denied from now on.
#[derive(Clone, Debug)]
enum Denial {
    /// A role of the agent.
    Agent(&'static str),
    /// Something that the server may ask of clients.
    Feature(&'static str),
    /// A mode of elicitation.
    Mode(&'static str),
    /// A thing, or its being there for a role.
    Gone(&'static str, usize),
    Role(&'static str, usize, &'static str),
    /// What is denied of a thing.
    Rule(&'static str, usize, Sets),
}

fn denial() -> impl Strategy<Value = Denial> {
    let of = |parts: &'static [&'static str]| (prop::sample::select(parts), 0usize..3);
    let role = || prop::sample::select(&ROLES[..]);
    let parts = &["tools", "prompts", "resources"];
    prop_oneof![
        1 => role().prop_map(Denial::Agent),
        1 => prop::sample::select(FEATURES.map(|(name, _)| name).to_vec()).prop_map(Denial::Feature),
        1 => prop::sample::select(vec!["form", "url"]).prop_map(Denial::Mode),
        1 => of(parts).prop_map(|(part, index)| Denial::Gone(part, index)),
        1 => (of(parts), role()).prop_map(|((part, index), role)| Denial::Role(part, index, role)),
        2 => (of(&["tools", "prompts"]), prop::sample::select(&ARGUMENTS[..])).prop_map(|((part, index), (sets, ..))| Denial::Rule(part, index, sets)),
        2 => (of(&["tools", "resources"]), prop::sample::select(&RETURNED[..])).prop_map(|((part, index), sets)| Denial::Rule(part, index, sets)),
    ]
}

impl Denial {
    /// The document with it. Where there is nothing to deny nothing changes.
    fn applied(&self, mut document: Value) -> Value {
        let without = |list: &mut Value, gone: &str| {
            if let Some(list) = list.as_array_mut() {
                list.retain(|item| item != gone);
            }
        };
        match *self {
            Self::Agent(role) => without(&mut document["agents"][0]["roles"], role),
            Self::Feature(name) => {
                let features = document["clientFeatures"].as_object_mut();
                features.and_then(|features| features.remove(name));
            }
            Self::Mode(mode) => {
                if let Some(modes) = document.pointer_mut("/clientFeatures/elicitation") {
                    without(modes, mode);
                }
            }
            Self::Gone(part, index) => {
                let things = document[part].as_array_mut().unwrap();
                // Of a resource that two rules cover the other one would be in force.
                let is_covered = things.iter().any(|thing| thing["uri"] == RESOURCES[1]);
                let gone = things.get(index);
                if gone.is_some_and(|gone| gone["uri"] != RESOURCES[0] || !is_covered) {
                    things.remove(index);
                }
            }
            Self::Role(part, index, role) => {
                if let Some(thing) = document[part].get_mut(index) {
                    without(&mut thing["roles"], role);
                }
            }
            Self::Rule(part, index, sets) => {
                let Some(thing) = document[part].get_mut(index) else {
                    return document;
                };
                for (way, value) in sets {
                    let at = way.iter().fold(&mut *thing, |at, step| &mut at[*step]);
                    *at = parsed(value);
                }
            }
        }
        document
    }
}

/// All texts and names in a message.
fn texts(value: &Value) -> BTreeSet<String> {
    match value {
        Value::String(text) => BTreeSet::from([text.clone()]),
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(members) => members
            .iter()
            .flat_map(|(key, value)| {
                let mut all = texts(value);
                all.insert(key.clone());
                all
            })
            .collect(),
        _ => BTreeSet::new(),
    }
}

proptest! {
    #[test]
    fn what_is_denied_of_arguments_is_refused_and_the_rest_is_as_it_was(tool: bool, modern: bool, (sets, denied, kept) in prop::sample::select(&ARGUMENTS[..])) {
        let all = |count| vec![Some(Roles::from(["a"])); count];
        let rules = Rules {
            agent: Roles::from(["a"]), tools: all(TOOLS.len()), prompts: all(PROMPTS.len()), resources: all(RESOURCES.len()),
            features: vec![false; FEATURES.len()], results: vec![RESULTS[0]; TOOLS.len() + RESOURCES.len()],
        };
        let (part, method, name) = if tool { ("tools", "tools/call", "t0") } else { ("prompts", "prompts/get", "p0") };
        let (before, after) = (compile(&rules.document()), compile(&Denial::Rule(part, 0, sets).applied(rules.document())));
        let up = |policy: &CompiledPolicy, arguments: &str| {
            let ask = Ask::new(modern, method, &format!(r#""name":"{name}","arguments":{arguments}"#));
            outcome(&ask.decided(policy, &Inventory::default()))
        };
        prop_assert!(up(&before, denied).is_ok());
        prop_assert!(matches!(up(&after, denied), Err(Reason::ArgumentForbidden | Reason::ArgumentOutOfBounds)));
        prop_assert!(up(&before, kept).is_ok());
        prop_assert_eq!(up(&after, kept), up(&before, kept));
    }

    #[test]
    fn denying_more_never_widens(rules in rules(), denial in denial(), asks in some_asks(), said in said()) {
        let document = rules.document();
        let (before, after) = (compile(&document), compile(&denial.applied(document)));
        let channels = |decision: &Decision| decision.outcome.as_ref().ok().and_then(|permitted| permitted.expected().cloned());
        // When nothing is filtered any more, the server's own words are heard on what isn't about one call: a stream of a
        // session, a subscription.
        let unfiltered = matches!(denial, Denial::Gone(..)) && before.has_owned() && !after.has_owned();
        for ask in asks {
            let (first, second) = (ask.decided(&before, &Inventory::default()), ask.decided(&after, &Inventory::default()));
            let Ok(sent) = outcome(&second) else {
                continue;
            };
            let Ok(was_sent) = outcome(&first) else {
                return Err(TestCaseError::fail(format!("{denial:?} permits {ask:?}")));
            };
            let (up, was_up) = (texts(&parsed(&sent)), texts(&parsed(&was_sent)));
            prop_assert!(up.is_subset(&was_up), "{} {}", sent, was_sent);

            let (Some(expected), Some(was_expected)) = (channels(&second), channels(&first)) else { continue };
            if unfiltered && expected.is_endless() {
                continue;
            }
            let messages = [said.answer(&ask)];
            let events = EVENTS.into_iter().filter(|_| ask.method == "ping" || ask.method == "tools/call" && ask.body.contains("\"n\":1"));
            for message in messages.iter().map(String::as_str).chain(events) {
                let now = told(&after, Channel::Answer(&expected), message);
                let then = told(&before, Channel::Answer(&was_expected), message);
                let (now, then) = (now.as_deref().map(held), then.as_deref().map(held));
                // `None` comes before all that is said.
                prop_assert!(now.is_none() || then.is_some());
                prop_assert!(now.unwrap_or_default().is_subset(&then.unwrap_or_default()), "{:?} {} {}", denial, ask.body, message);
            }
        }
        for event in EVENTS.into_iter().filter(|_| !unfiltered) {
            let channel = Channel::Session(mcp::ProtocolVersion::LATEST_LEGACY);
            let (now, then) = (told(&after, channel, event), told(&before, channel, event));
            prop_assert!(now.is_none() || then.is_some(), "{:?} {}", denial, event);
            prop_assert!(now.as_deref().map(held).unwrap_or_default().is_subset(&then.as_deref().map(held).unwrap_or_default()));
        }
        // What was asked while more was granted isn't answered any more.
        let handle = Handle::Request { granted: before.features.written(), id: "5".into() };
        let sealed = Handles::new(&HERE, "spiffe://acme/billing", Some("s-1")).seal(&handle).unwrap();
        let reply = json!({"jsonrpc": "2.0", "id": sealed, "result": {}}).to_string();
        let answered = |policy: &CompiledPolicy| decide(policy, "billing", LEGACY, &reply, &Inventory::default()).outcome.is_ok();
        prop_assert!(answered(&before));
        prop_assert_eq!(answered(&after), after.features.written() == before.features.written());
    }
}
