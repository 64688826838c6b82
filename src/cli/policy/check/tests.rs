use std::fs;

use super::*;
use crate::{
    exit::Exit,
    offline::tests::{ACME, acme_with_persons},
    policy::{cases, report},
};

const CASES: &str = "
tenant: acme.yaml
agent: billing
cases:
- name: listing
  request: {method: tools/call, params: {name: list_invoices, arguments: {limit: 5}}}
  expect: {decision: permit, rule: 'tools[list_invoices]'}
";

/// A folder with acme and these cases.
fn run(text: &str) -> (Suite, tempfile::TempDir) {
    run_at(ACME, text)
}

/// The same with another acme.
fn run_at(tenant: &str, text: &str) -> (Suite, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("acme.yaml"), tenant).unwrap();
    let file = folder.path().join("cases.yaml");
    fs::write(&file, text).unwrap();
    (suite(&file), folder)
}

fn report(suite: Suite) -> (String, Exit) {
    let suites = [suite];
    let text = anstream::adapter::strip_str(&report::text(&suites)).to_string();
    (text, report::exit(&suites))
}

#[test]
fn the_samples_hold() {
    let folder = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../manifests/samples/policy-tests"
    ));
    let files = cases::files(folder).unwrap();
    assert_eq!(files.len(), 2);
    let suites: Vec<_> = files.iter().map(|file| suite(file)).collect();
    assert_eq!(report::exit(&suites), Exit::Success, "{}", report::text(&suites));
}

#[test]
fn an_agent_is_tried_as_it_acts_for_a_person() {
    let cases = "
tenant: acme.yaml
agent: ops
cases:
- name: of finance
  person: {sub: ada, groups: [finance], email: ada@acme.example}
  request: {method: tools/call, params: {name: list_invoices, arguments: {clerk: eve}}}
  expect:
    decision: permit
    roles: [reader]
    overridden: [clerk]
    arguments: {tenant_id: 7f9c0d5e-1b7a-4c57-9f6e-2f3f0a1c0001, location_id: lon-02, clerk: ada@acme.example}
- name: of nothing
  person: {sub: eve, email: eve@acme.example}
  request: {method: tools/call, params: {name: list_invoices}}
  expect: {decision: refuse, reason: tool_not_granted, roles: []}
- name: for herself
  request: {method: tools/call, params: {name: list_invoices}}
  expect: {decision: refuse, reason: claim_missing}
- name: of another issuer
  person: {iss: 'https://evil.example', sub: ada}
  request: {method: tools/call, params: {name: list_invoices}}
  expect: {decision: refuse}
- name: of the agent that needs one
  agent: billing
  request: {method: tools/call, params: {name: list_invoices}}
  expect: {decision: refuse}
- name: of nobody
  person: {email: ada@acme.example}
  request: {method: tools/call, params: {name: list_invoices}}
  expect: {decision: refuse}
";
    let (suite, _folder) = run_at(&acme_with_persons(), cases);
    let (text, exit) = report(suite);
    assert_eq!(exit, Exit::Failure, "{text}");
    for part in [
        "3 passed",
        "spec.issuers doesn't name it",
        "need sub",
        "token_person_missing",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn another_decision_is_shown_with_its_reason() {
    let (suite, _folder) = run(&CASES.replace("list_invoices", "delete_invoice"));
    let (text, exit) = report(suite);
    assert_eq!(exit, Exit::Different);
    for line in [
        "differs   listing",
        "-decision: permit",
        "+decision: refuse",
        "+reason: tool_not_granted",
        "+rule: tools[delete_invoice].roles",
        "0 passed, 1 differ",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn each_thing_that_is_expected_is_compared() {
    let rule = "rule: 'tools[list_invoices]'";
    let forced = "location_id: nyc-01, tenant_id: 7f9c0d5e-1b7a-4c57-9f6e-2f3f0a1c0001";
    let table = [
        (rule.to_owned(), true),
        ("rule: 'tools[get_invoice]'".into(), false),
        ("roles: [reader]".into(), true),
        ("roles: [reader, admin]".into(), false),
        ("roles: []".into(), false),
        ("overridden: []".into(), true),
        ("overridden: [tenant_id]".into(), false),
        ("reason: tool_unknown".into(), false),
        (format!("arguments: {{limit: 5, {forced}}}"), true),
        (format!("arguments: {{limit: 6, {forced}}}"), false),
        ("arguments: {limit: 5}".into(), false),
    ];
    for (expected, holds) in table {
        let (suite, _folder) = run(&CASES.replace(rule, &expected));
        let exit = if holds { Exit::Success } else { Exit::Different };
        assert_eq!(report(suite).1, exit, "{expected}");
    }
}

#[test]
fn what_becomes_of_a_reply_is_compared() {
    let case = |answer: &str| {
        let reply = "reply: {result: {tools: [{name: export_all, inputSchema: {type: object}}]}}";
        CASES
            .replace(
                "  request: {method: tools/call, params: {name: list_invoices, arguments: {limit: 5}}}",
                &format!("  request: {{method: tools/list}}\n  {reply}"),
            )
            .replace("rule: 'tools[list_invoices]'", &format!("answer: {answer}"))
    };
    let table = [
        ("{outcome: answered, tools: []}", true),
        ("{outcome: answered, tools: [export_all]}", false),
        ("{outcome: answered, message: {result: {tools: []}}}", true),
        (
            "{outcome: answered, message: {id: 2, result: {tools: []}}}",
            false,
        ),
        ("{outcome: answered, dropped: {}}", true),
        (
            "{outcome: answered, dropped: {export_all: tool_malformed}}",
            false,
        ),
        ("{outcome: refused}", false),
    ];
    for (answer, holds) in table {
        let (suite, _folder) = run(&case(answer));
        let exit = if holds { Exit::Success } else { Exit::Different };
        let (text, actual) = report(suite);
        assert_eq!(actual, exit, "{answer}\n{text}");
    }
}

#[test]
fn what_a_rule_only_reports_is_compared() {
    let bound = "limit: {minimum: 1, maximum: 100}";
    assert!(ACME.contains(bound));
    let reporting = ACME.replace(
        bound,
        "limit: {minimum: 1, maximum: 100, enforcement: Report}\n      results: {maxBytes: 256, enforcement: Report}",
    );
    let words = "x".repeat(300);
    let reply = format!("reply: {{result: {{content: [{{type: text, text: {words}}}]}}}}");
    let case = |limit: &str, expected: &str| {
        let reply = if expected.starts_with("answer") {
            &reply
        } else {
            ""
        };
        CASES
            .replace("limit: 5}}}", &format!("limit: {limit}}}}}}}\n  {reply}"))
            .replace("rule: 'tools[list_invoices]'", expected)
    };
    let rule = "reported: ['tools[list_invoices].bounds[limit]']";
    let table = [
        ("500", rule, true),
        ("500", "reported: []", false),
        ("5", "reported: []", true),
        ("5", rule, false),
        (
            "5",
            "answer: {outcome: answered, reported: answer_too_long}",
            true,
        ),
        (
            "5",
            "answer: {outcome: answered, reported: records_foreign}",
            false,
        ),
    ];
    for (limit, expected, holds) in table {
        let (suite, _folder) = run_at(&reporting, &case(limit, expected));
        let exit = if holds { Exit::Success } else { Exit::Different };
        let (text, actual) = report(suite);
        assert_eq!(actual, exit, "{limit} {expected}\n{text}");
    }
}

#[test]
fn what_can_not_be_run_never_passes() {
    let table = [
        (
            CASES.replace("acme.yaml", "globex.yaml"),
            "globex.yaml",
            Exit::Failure,
        ),
        (
            CASES.replace("agent: billing", "agent: eve"),
            "no agent eve; there is: billing, ops",
            Exit::NotFound,
        ),
        (
            CASES.replace("agent: billing\n", ""),
            "name one: billing, ops",
            Exit::Failure,
        ),
        (
            CASES.replace("agent: billing", "agent: billing\nserver: crm"),
            "no server crm",
            Exit::NotFound,
        ),
        (
            CASES.replace("- name: listing", "- name: listing\n  agent: eve"),
            "no agent eve",
            Exit::NotFound,
        ),
        (CASES.replace("rule:", "rul:"), "rul", Exit::Failure),
        (
            CASES.replace("decision: permit", "decision: allow"),
            "allow",
            Exit::Failure,
        ),
        (CASES.replace("decision: permit, ", ""), "decision", Exit::Failure),
        (
            format!("{CASES}{}", &CASES[CASES.find("- name").unwrap()..]),
            "two cases have the name",
            Exit::Failure,
        ),
        (
            CASES.replace("  expect", "  reply: {result: {}}\n  expect"),
            "expects nothing of it",
            Exit::Failure,
        ),
        (
            CASES.replace("rule: 'tools[list_invoices]'", "answer: {outcome: answered}"),
            "has no reply",
            Exit::Failure,
        ),
        (
            "tenant: acme.yaml\ncases: []\n".into(),
            "has no cases",
            Exit::Failure,
        ),
        ("a: [".into(), "not a file of cases", Exit::Failure),
    ];
    for (text, says, code) in table {
        let (suite, _folder) = run(&text);
        let (text, exit) = report(suite);
        assert!(text.contains(says), "{says}: {text}");
        assert_eq!(exit, code, "{text}");
    }
}

#[test]
fn a_junit_report_has_each_case_with_what_came_of_it() {
    let mut two = CASES.to_owned();
    two.push_str(
        &CASES[CASES.find("- name").unwrap()..]
            .replace("listing", "other")
            .replace("permit", "refuse"),
    );
    two.push_str(&CASES[CASES.find("- name").unwrap()..].replace("listing", "third\n  agent: eve"));
    let (suite, _folder) = run(&two);
    let xml = report::junit(&[suite]).unwrap();
    for part in [
        r#"tests="3" skipped="0" errors="1" failures="1""#,
        r#"<testcase name="listing"/>"#,
        "-decision: refuse",
        "+decision: permit",
        "no agent eve",
    ] {
        assert!(xml.contains(part), "{part}\n{xml}");
    }
    assert!(!xml.contains('\u{1b}'));
}

#[test]
fn files_of_cases_are_found_in_folders_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("b")).unwrap();
    for name in ["c.yml", "b/a.yaml", "a.yaml", "notes.md"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let found = cases::files(folder.path()).unwrap();
    let names: Vec<_> = found
        .iter()
        .map(|file| file.strip_prefix(folder.path()).unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["a.yaml", "b/a.yaml", "c.yml"]);
    assert!(cases::files(&folder.path().join("nowhere")).is_err());
}
