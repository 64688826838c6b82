//! An outcome as people read it.

use std::{collections::BTreeSet, fmt::Write as _};

use crate::{
    offline::outcome::{Answered, Fate, Outcome, Verdict},
    paint::{self, printable},
};

/// The whole outcome. `tools` are those that exist for the agent.
pub fn of(outcome: &Outcome, tools: &str) -> String {
    let mut lines = Lines::default();
    let asked = [&outcome.method, &outcome.tool, &outcome.prompt, &outcome.resource].map(Option::as_deref);
    let asked: Vec<_> = asked.into_iter().flatten().map(printable).collect();
    let asked = if asked.is_empty() {
        "a body that can't be read".into()
    } else {
        asked.join(" ")
    };
    let verdict = match outcome.decision {
        Verdict::Permit => paint::good("permit"),
        Verdict::Refuse => paint::bad("refuse"),
    };
    let Outcome {
        agent,
        tenant,
        server,
        policy_revision,
        ..
    } = outcome;
    let who = match &outcome.person {
        Some(person) => format!("{agent} for {}", printable(person)),
        None => agent.clone(),
    };
    lines.0 = format!("{verdict}  {asked}, {who} to {tenant}/{server}, policy {policy_revision}\n");
    if let (Some(reason), Some(explanation)) = (outcome.reason, outcome.explanation) {
        lines.add("reason", &format!("{}: {explanation}", paint::bad(reason)));
    }
    if let Some(rule) = &outcome.rule {
        lines.add("rule", &format!("{}{}", printable(rule), roles(outcome)));
    }
    lines.add("tools", &format!("{tools} ({who})"));
    for forced in &outcome.forced {
        let given = match &forced.given {
            None => "(not given)".to_owned(),
            Some(given) if forced.overridden => paint::unclear(&given.to_string()),
            Some(given) => given.to_string(),
        };
        lines.add(
            "forced",
            &format!("{}: {given} → {}", forced.argument, forced.forced),
        );
    }
    for rule in &outcome.reported {
        let refused = paint::unclear("would have refused it");
        lines.add("reported", &format!("{} {refused}", printable(rule)));
    }
    if !outcome.removed.is_empty() {
        lines.add("left out", &names(&outcome.removed));
    }
    if let Some(arguments) = &outcome.arguments {
        lines.add("arguments", &arguments.to_string());
    }
    match &outcome.upstream {
        Some(upstream) => {
            lines.add("upstream", &format!("POST {}", upstream.url));
            for (name, value) in &upstream.headers {
                lines.more(&format!("{name}: {value}"));
            }
            lines.more(&upstream.body);
        }
        None => lines.add("upstream", "nothing"),
    }
    if let Some(told) = &outcome.refusal {
        lines.add("client", &format!("HTTP {}", told.status));
        lines.more(&told.body);
    }
    if let Some(answer) = &outcome.answer {
        self::answer(&mut lines, answer);
    }
    lines.0
}

/// Which roles let the agent, or would have.
fn roles(outcome: &Outcome) -> String {
    let named = |roles: &BTreeSet<String>| roles.iter().cloned().collect::<Vec<_>>().join(", ");
    match (outcome.roles.is_empty(), outcome.tool_roles.is_empty()) {
        (false, _) => format!(", role {}", named(&outcome.roles)),
        (true, false) => format!(
            ", which are {}; none of them is the agent's",
            named(&outcome.tool_roles)
        ),
        (true, true) => String::new(),
    }
}

fn answer(lines: &mut Lines, answer: &Answered) {
    let reason = answer
        .reason
        .map(|reason| format!(": {}", paint::bad(reason)))
        .unwrap_or_default();
    let fate = match answer.outcome {
        Fate::Answered => "the client gets",
        Fate::Event => "a notification, the client gets",
        Fate::Dropped => "dropped, the client waits on",
        Fate::Refused => "refused, the client gets an error",
    };
    lines.add("reply", &format!("{fate}{reason}"));
    if let Some(body) = &answer.body {
        lines.more(body);
    }
    if let Some(tools) = &answer.tools {
        lines.add("left", &names(tools));
    }
    if !answer.hidden.is_empty() {
        lines.add("hidden", &names(&answer.hidden));
    }
    if let Some(reason) = answer.reported {
        lines.add("reported", &paint::unclear(reason));
    }
    if let (Some(kept), Some(removed)) = (answer.records_kept, answer.records_removed) {
        lines.add(
            "records",
            &match answer.reported {
                None => format!("{kept} left, {removed} gone that aren't the agent's"),
                Some(_) => format!("{kept} of the agent, {removed} that aren't, and pass"),
            },
        );
    }
    for (tool, reason) in &answer.dropped {
        lines.add("dropped", &format!("{}: {}", printable(tool), paint::bad(reason)));
    }
}

fn names(names: &[String]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    names
        .iter()
        .map(|name| printable(name))
        .collect::<Vec<_>>()
        .join(", ")
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, what: &str, text: &str) {
        // Into a String, nothing can go wrong.
        let _ = writeln!(self.0, "  {what:<10} {text}");
    }

    fn more(&mut self, text: &str) {
        self.add("", text);
    }
}
