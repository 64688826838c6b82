//! Of which changes of lists a client is told, and in whose words.

use super::*;
use crate::mcp::{
    Era, Fingerprint, ProtocolVersion,
    inventory::{Learned, Listing, Showing, Shown},
};

const LEGACY_VERSION: ProtocolVersion = ProtocolVersion::V20250618;
const TOOLS: &str = "notifications/tools/list_changed";
const PROMPTS: &str = "notifications/prompts/list_changed";
const RESOURCES: &str = "notifications/resources/list_changed";

fn offers() -> Value {
    let mut document = document();
    document["prompts"] =
        json!([{"name": "summary", "roles": ["reader"]}, {"name": "purge", "roles": ["admin"]}]);
    document["resources"] = json!([
        {"uri": "docs://handbook", "roles": ["reader"]}, {"uri": "keys://{id}", "roles": ["admin"]},
        {"uri": "crm://{id}", "roles": ["reader"]},
    ]);
    document
}

fn shown<'a>(entries: impl IntoIterator<Item = (String, &'a str)>) -> Shown {
    let mut showing = Showing::default();
    for (name, definition) in entries {
        showing.add(name, Fingerprint::of(definition));
    }
    showing.finish()
}

/// What the server shows in the legacy era: each entry by name, with its definition.
type Lists<'a> = &'a [(Listing, &'a [(&'a str, &'a str)])];

fn showing(known: Inventory, lists: Lists<'_>) -> Inventory {
    lists.iter().fold(known, |known, (listing, entries)| {
        let entries = entries
            .iter()
            .map(|(name, definition)| ((*name).to_owned(), *definition));
        known.showing(*listing, Era::Legacy, &shown(entries)).unwrap()
    })
}

const BEFORE: Lists<'static> = &[
    (Listing::Tools, &[("list", "1"), ("free", "1"), ("delete", "1")]),
    (Listing::Prompts, &[("summary", "1"), ("purge", "1")]),
    (
        Listing::Resources,
        &[("docs://handbook", "1"), ("crm://1", "1"), ("keys://1", "1")],
    ),
    (Listing::Templates, &[("crm://{id}", "1"), ("keys://{id}", "1")]),
];

/// The methods that `billing` is told on its session's stream.
fn told(before: (&Value, &Inventory), after: (&Value, &Inventory)) -> Vec<String> {
    let channel = Channel::Session(LEGACY_VERSION);
    let views = |(document, inventory): (&Value, &Inventory)| {
        let policy = compile(document);
        let agent = policy.agent("spiffe://acme/billing").unwrap();
        policy.views(agent, channel, inventory)
    };
    let told = views(before).changes(&views(after), channel);
    told.iter()
        .map(|message| {
            serde_json::from_slice::<Value>(message).unwrap()["method"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[test]
fn an_agent_is_told_when_its_own_list_changed_and_not_otherwise() {
    let cases: &[(&str, Lists<'_>, &[&str])] = &[
        ("nothing", &[], &[]),
        (
            "its tool is another",
            &[(Listing::Tools, &[("list", "2"), ("free", "1"), ("delete", "1")])],
            &[TOOLS],
        ),
        (
            "its tool is gone",
            &[(Listing::Tools, &[("free", "1"), ("delete", "1")])],
            &[TOOLS],
        ),
        (
            "another agent's tool is another",
            &[(Listing::Tools, &[("list", "1"), ("free", "1"), ("delete", "2")])],
            &[],
        ),
        (
            "another agent's tool is gone",
            &[(Listing::Tools, &[("list", "1"), ("free", "1")])],
            &[],
        ),
        (
            "its prompt is gone",
            &[(Listing::Prompts, &[("purge", "1")])],
            &[PROMPTS],
        ),
        (
            "another's prompt is gone",
            &[(Listing::Prompts, &[("summary", "1")])],
            &[],
        ),
        (
            "its resource came",
            &[(
                Listing::Resources,
                &[
                    ("docs://handbook", "1"),
                    ("crm://1", "1"),
                    ("crm://2", "1"),
                    ("keys://1", "1"),
                ],
            )],
            &[RESOURCES],
        ),
        (
            "another's resource came",
            &[(
                Listing::Resources,
                &[
                    ("docs://handbook", "1"),
                    ("crm://1", "1"),
                    ("keys://1", "1"),
                    ("keys://2", "1"),
                ],
            )],
            &[],
        ),
        (
            "its template is another",
            &[(Listing::Templates, &[("crm://{id}", "2"), ("keys://{id}", "1")])],
            &[RESOURCES],
        ),
        (
            "another's template is gone",
            &[(Listing::Templates, &[("crm://{id}", "1")])],
            &[],
        ),
        (
            "two of its lists",
            &[(Listing::Tools, &[]), (Listing::Prompts, &[])],
            &[TOOLS, PROMPTS],
        ),
    ];
    let (document, before) = (offers(), showing(Inventory::default(), BEFORE));
    for (what, lists, expected) in cases {
        let after = showing(before.clone(), lists);
        assert_eq!(
            told((&document, &before), (&document, &after)),
            *expected,
            "{what}"
        );
    }
}

#[test]
fn an_agent_is_told_when_the_policy_changes_what_it_sees() {
    let cases: &[(&str, Value, &[&str])] = &[
        ("/tools/0/roles", json!(["admin"]), &[TOOLS]),
        (
            "/tools/0/forced",
            json!({"tenant": {"string": "acme"}, "place": {"string": "x"}}),
            &[TOOLS],
        ),
        ("/tools/0/bounds/limit/maximum", json!(50), &[]),
        ("/tools/4/roles", json!(["reader"]), &[TOOLS]),
        ("/tools/4/forced", json!({}), &[]),
        ("/prompts/0/roles", json!([]), &[PROMPTS]),
        ("/resources/0/roles", json!([]), &[RESOURCES]),
        ("/resources/1/roles", json!([]), &[]),
        ("/agents/1/roles", json!([]), &[]),
    ];
    let (document, inventory) = (offers(), showing(Inventory::default(), BEFORE));
    for (at, value, expected) in cases {
        let mut changed = document.clone();
        *changed.pointer_mut(at).unwrap() = value.clone();
        assert_eq!(
            told((&document, &inventory), (&changed, &inventory)),
            *expected,
            "{at} {value}"
        );
    }
}

#[test]
fn an_agent_is_told_when_the_policy_accepts_what_is_shown_or_no_longer_does() {
    let (one, other) = (Fingerprint::of("1"), Fingerprint::of("2"));
    let seen = |listing, name: &str| Learned {
        listing,
        version: LEGACY_VERSION,
        name: name.to_owned(),
        fingerprint: one,
        facts: Ok(None),
    };
    let known = showing(Inventory::default(), BEFORE);
    let known = known
        .learning(&[seen(Listing::Tools, "list"), seen(Listing::Prompts, "summary")])
        .unwrap();
    let accepting = |accepted: &[Fingerprint]| {
        let accepted: Vec<_> = accepted.iter().map(ToString::to_string).collect();
        let mut document = offers();
        document["tools"][0]["definitions"] = json!(accepted);
        document["prompts"][0]["definitions"] = json!(accepted);
        document
    };
    for (before, after, expected) in [
        (&[one][..], &[one, other][..], &[][..]),
        (&[one], &[other], &[TOOLS, PROMPTS]),
        (&[other], &[one], &[TOOLS, PROMPTS]),
        (&[], &[one], &[]),
    ] {
        let told = told((&accepting(before), &known), (&accepting(after), &known));
        assert_eq!(told, expected, "{before:?} {after:?}");
    }
    let hidden = Learned {
        facts: Err(Reason::HiddenCharacters),
        ..seen(Listing::Resources, "docs://handbook")
    };
    let without = known.learning(&[hidden]).unwrap();
    let document = offers();
    assert_eq!(told((&document, &known), (&document, &without)), [RESOURCES]);
}

#[test]
fn a_list_of_very_many_changes_for_all_who_have_something_of_it() {
    // By their number, and by the length of their names.
    for (count, length) in [(5000, 1), (200, 8000)] {
        let many = |last: &str, reversed: bool| {
            let filler = "x".repeat(length);
            let mut entries: Vec<_> = (0..count).map(|n| (format!("keys://{n}{filler}"), "1")).collect();
            entries.push(("docs://handbook".to_owned(), last));
            if reversed {
                entries.reverse();
            }
            let shown = shown(entries);
            assert!(matches!(shown, Shown::Many(_)), "{count} {length}");
            Inventory::default()
                .showing(Listing::Resources, Era::Legacy, &shown)
                .unwrap()
        };
        let document = offers();
        let told = |before: &Inventory, after: &Inventory| told((&document, before), (&document, after));
        assert_eq!(told(&many("1", false), &many("2", false)), [RESOURCES]);
        assert_eq!(told(&many("1", false), &many("1", true)), [""; 0]);
    }
}

#[test]
fn a_subscription_is_told_what_it_asked_for_and_whose_it_is() {
    let policy = compile(&offers());
    let agent = policy.agent("spiffe://acme/billing").unwrap();
    let headers: Headers<'_> = &[
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "subscriptions/listen"),
    ];
    let listen = modern(
        "subscriptions/listen",
        r#""notifications":{"toolsListChanged":true,"promptsListChanged":false,"resourceSubscriptions":[]}"#,
    );
    let nothing = Inventory::default();
    let permitted = decide(&policy, "billing", headers, &listen, &nothing)
        .outcome
        .unwrap();
    let channel = Channel::Answer(permitted.expected().unwrap());
    // In an era that the server doesn't speak the other's lists are what there is.
    let known = showing(Inventory::default(), BEFORE);
    let before = policy.views(agent, channel, &nothing);
    let told = before.changes(&policy.views(agent, channel, &known), channel);
    assert_eq!(
        told,
        [
            r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":1}}}"#
        ]
    );
}

#[test]
fn what_the_server_says_of_its_lists_is_a_reason_to_look_and_nothing_that_passes() {
    let policy = compile(&offers());
    let agent = policy.agent("spiffe://acme/billing");
    let nothing = Inventory::default();
    let modern_headers: Headers<'_> = &[
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "subscriptions/listen"),
    ];
    let listen = modern(
        "subscriptions/listen",
        r#""notifications":{"toolsListChanged":true}"#,
    );
    let subscription = decide(&policy, "billing", modern_headers, &listen, &nothing)
        .outcome
        .unwrap();
    let called = decide(&policy, "billing", LEGACY, &call("free", "{}"), &nothing)
        .outcome
        .unwrap();
    let of = |id: u8| format!(r#","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}"#);
    for method in [TOOLS, PROMPTS, RESOURCES] {
        for (channel, params, heeded) in [
            (Channel::Session(LEGACY_VERSION), String::new(), true),
            (Channel::Answer(called.expected().unwrap()), String::new(), true),
            (Channel::Answer(subscription.expected().unwrap()), of(1), true),
            (Channel::Answer(subscription.expected().unwrap()), of(2), false),
            (
                Channel::Answer(subscription.expected().unwrap()),
                String::new(),
                false,
            ),
        ] {
            let body = Bytes::from(format!(r#"{{"jsonrpc":"2.0","method":"{method}"{params}}}"#));
            let answer = policy.answer(agent, channel, &body, context(&nothing));
            match answer {
                Answer::ListChanged => assert!(heeded, "{channel:?} {params}"),
                Answer::Dropped(Reason::ServerMessageDenied) => assert!(!heeded, "{channel:?} {params}"),
                passed => panic!("{passed:?}"),
            }
        }
    }
}
