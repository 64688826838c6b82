//! Handles: invented ones, another agent's real ones, and one's own where they don't belong. Each real one is good in the
//! hands of its owner.

use bulkhead_core::Reason;
use bulkhead_proxy::refusal::EdgeRefusal;

use super::{Case, joined};
use crate::good::{CAPABILITIES, Form, Good, RESPONSE};

const FAMILY: &str = "handle";

pub fn of(good: &Good) -> Vec<Case> {
    match good.form {
        Form::Response => requests(good),
        Form::Stream => [sessions(good), events(good)].concat(),
        Form::End => sessions(good),
        _ if good.params.contains("taskId") => tasks(good),
        _ => [cursors(good), states(good), sessions(good)].concat(),
    }
}

/// Nobody's handles.
fn invented() -> Vec<String> {
    ["1".to_owned(), "A".repeat(120), "<billing's session>A".into()].into()
}

fn cursors(good: &Good) -> Vec<Case> {
    if !good.method.ends_with("/list") || good.form != Form::Request {
        return Vec::new();
    }
    let with = |cursor: &str| good.with_params(&format!("\"cursor\":\"{cursor}\""));
    let wrong = [
        "",
        "upstream-cursor",
        "<support's cursor>",
        "<billing's task>",
        "<billing's cursor of another list>",
    ];
    let wrong = wrong.map(str::to_owned).into_iter().chain(invented());
    let refused = wrong.map(|cursor| Case::body(good, FAMILY, &cursor, with(&cursor), Reason::HandleUnknown));
    let passes = ["billing", "support"].map(|agent| {
        let cursor = format!("<{agent}'s cursor>");
        Case::passes(good, FAMILY, &cursor, with(&cursor), with(&cursor)).of(agent)
    });
    refused.chain(passes).collect()
}

fn states(good: &Good) -> Vec<Case> {
    if !good
        .entry()
        .is_some_and(|entry| entry.params.contains(&"requestState"))
    {
        return Vec::new();
    }
    let with = |state: &str| good.with_params(&joined(good.params, &format!("\"requestState\":\"{state}\"")));
    let wrong = [
        "",
        "upstream-state",
        "<support's state>",
        "<billing's state of another method>",
        "<billing's state of another name>",
        "<billing's cursor>",
    ];
    let wrong = wrong.map(str::to_owned).into_iter().chain(invented());
    let refused = wrong.map(|state| Case::body(good, FAMILY, &state, with(&state), Reason::HandleUnknown));
    let passes = ["billing", "support"].map(|agent| {
        let state = format!("<{agent}'s state>");
        Case::passes(good, FAMILY, &state, with(&state), with(&state)).of(agent)
    });
    refused.chain(passes).collect()
}

fn tasks(good: &Good) -> Vec<Case> {
    let with = |task: &str| good.body().replace("<billing's task>", task);
    let wrong = [
        "",
        "upstream-task",
        "<support's task>",
        "<billing's cursor>",
        "<support's task of a lost tool>",
    ];
    let wrong = wrong.map(str::to_owned).into_iter().chain(invented());
    let mut refused: Vec<_> = wrong.map(|task| (task, Reason::HandleUnknown)).collect();
    refused.push(("<billing's task of a lost tool>".into(), Reason::ToolNotGranted));
    let refused = refused
        .into_iter()
        .map(|(task, why)| Case::body(good, FAMILY, &task, with(&task), why).instead("mcp-name", &task));
    let passes = ["<support's task>", "<support's task of a lost tool>"].map(|task| {
        Case::passes(good, FAMILY, task, with(task), with(task))
            .instead("mcp-name", task)
            .of("support")
            .seeing("mcp-name", Some("upstream-task"))
    });
    let bare = good.body().replacen(
        CAPABILITIES,
        r#""io.modelcontextprotocol/clientCapabilities":{}"#,
        1,
    );
    let bare = Case::body(
        good,
        FAMILY,
        "without the extension",
        bare,
        Reason::CapabilityMissing,
    );
    refused.chain(passes).chain([bare]).collect()
}

/// `Mcp-Session-Id`, on every verb of the legacy era.
fn sessions(good: &Good) -> Vec<Case> {
    if good.is_modern() || good.method == "initialize" {
        return Vec::new();
    }
    let header = "mcp-session-id";
    let wrong = [
        "upstream-session",
        "<support's session>",
        "<support's second session>",
        "<billing's task>",
    ];
    let wrong = wrong.map(str::to_owned).into_iter().chain(invented());
    let mut cases: Vec<_> = wrong
        .map(|session| {
            let case = Case::body(good, FAMILY, &session, good.body(), EdgeRefusal::SessionUnknown);
            case.instead(header, &session)
        })
        .collect();
    let two = [
        (header, "<billing's session>"),
        (header, "<billing's second session>"),
    ];
    let mut twice = Case::body(
        good,
        FAMILY,
        "two sessions",
        good.body(),
        EdgeRefusal::HeaderMalformed,
    );
    twice.headers.retain(|(name, _)| name != header);
    cases.push(twice.with(&two));
    if good.form != Form::Request && good.form != Form::Notification {
        let mut none = Case::body(
            good,
            FAMILY,
            "no session",
            good.body(),
            EdgeRefusal::SessionMissing,
        );
        none.headers.retain(|(name, _)| name != header);
        cases.push(none);
    }
    for (agent, session, own) in [
        ("billing", "<billing's session>", "upstream-session"),
        ("billing", "<billing's second session>", "second-session"),
        ("support", "<support's session>", "upstream-session"),
    ] {
        let case = Case::passes(good, FAMILY, session, good.body(), good.body());
        cases.push(case.instead(header, session).of(agent).seeing(header, Some(own)));
    }
    cases
}

/// Where a stream is taken up again.
fn events(good: &Good) -> Vec<Case> {
    let header = "last-event-id";
    let wrong = [
        "upstream-event",
        "<support's event>",
        "<billing's event of the second session>",
        "<billing's session>",
    ];
    let wrong = wrong.map(str::to_owned).into_iter().chain(invented());
    let refused = wrong.map(|event| {
        Case::body(good, FAMILY, &event, "", EdgeRefusal::EventUnknown).with(&[(header, &event)])
    });
    let session = "mcp-session-id";
    // The mark is its own, the session is another.
    let elsewhere = Case::body(
        good,
        FAMILY,
        "in the second session",
        "",
        EdgeRefusal::EventUnknown,
    )
    .with(&[(header, "<billing's event>")])
    .instead(session, "<billing's second session>");
    let twice = Case::body(good, FAMILY, "two events", "", EdgeRefusal::HeaderMalformed)
        .with(&[(header, "<billing's event>"), (header, "<billing's event>")]);
    let passes = [
        ("billing", "<billing's session>", "<billing's event>"),
        (
            "billing",
            "<billing's second session>",
            "<billing's event of the second session>",
        ),
        ("support", "<support's session>", "<support's event>"),
    ]
    .map(|(agent, in_session, event)| {
        Case::passes(good, FAMILY, event, "", "")
            .instead(session, in_session)
            .with(&[(header, event)])
            .of(agent)
            .seeing(header, Some("upstream-event"))
    });
    refused.chain([elsewhere, twice]).chain(passes).collect()
}

/// Answers to what the server asked another, elsewhere, or never.
fn requests(good: &Good) -> Vec<Case> {
    let with = |id: &str| RESPONSE.replace("\"<billing's request>\"", id);
    let wrong = [
        "7",
        "\"upstream-request\"",
        "\"<support's request>\"",
        "\"<billing's request of the second session>\"",
        "\"<billing's request of before>\"",
        "\"<billing's session>\"",
    ];
    let unexpected = Reason::ResponseUnexpected;
    let refused = wrong.map(|id| Case::body(good, FAMILY, id, with(id), unexpected));
    let session = "mcp-session-id";
    let elsewhere = [
        "<support's session>",
        "<billing's second session>",
        "upstream-session",
    ]
    .map(|id| Case::body(good, FAMILY, id, good.body(), unexpected).instead(session, id));
    let mut none = Case::body(good, FAMILY, "no session", good.body(), unexpected);
    none.headers.retain(|(name, _)| name != session);
    let passes = [
        (
            "billing",
            "<billing's second session>",
            "\"<billing's request of the second session>\"",
        ),
        ("support", "<support's session>", "\"<support's request>\""),
    ]
    .map(|(agent, in_session, id)| {
        Case::passes(good, FAMILY, id, with(id), with(id))
            .instead(session, in_session)
            .of(agent)
    });
    refused
        .into_iter()
        .chain(elsewhere)
        .chain([none])
        .chain(passes)
        .collect()
}
