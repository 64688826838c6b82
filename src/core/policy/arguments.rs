//! Arguments of a tool call: bounds checked, forced values spliced in, the rest untouched.

use std::sync::Arc;

use crate::{
    json::{
        self, Kind, number,
        text::{is_case_variant, quote},
    },
    mcp::{Params, envelope::span, input_schema::InputSchema},
    policy::{
        compile::{ForcedArgument, Grant},
        splice::Edit,
    },
    reason::Reason,
    refusal::{Refusal, named, shortened},
};

/// Memory that arguments may take as a tree of values, in bytes.
const MAX_WEIGHT: usize = 8 << 20;

/// What becomes of the arguments.
#[derive(Debug, Default)]
pub(super) struct Rewrite {
    /// Changes of the body. None: the arguments are final.
    pub edits: Vec<Edit>,
    /// Forced arguments for which the caller gave another value.
    pub overridden: Vec<Arc<str>>,
    /// Rules that would have refused the call, and only report it.
    pub reported: Vec<Arc<str>>,
}

/// Checks and rewrites the arguments of a call.
pub(super) fn rewrite(grant: &Grant, body: &[u8], params: &Params<'_>) -> Result<Rewrite, Refusal> {
    let raw = params.get("arguments");
    let members = match raw.map(Kind::of) {
        None | Some(Kind::Null) => Vec::new(),
        Some(Kind::Object) if !grant.rule.has_arguments() => return Ok(Rewrite::default()),
        Some(Kind::Object) => raw.and_then(json::members).unwrap_or_default(),
        Some(_) => {
            let refusal = Refusal::new(Reason::ArgumentsNotObject, "params.arguments is no object");
            return Err(refusal.by(grant.rule.path.clone()));
        }
    };
    let ruled = || {
        let bounded = grant.rule.bounds.iter().map(|bound| &bound.argument);
        let forced = grant.forced.iter().map(|forced| &forced.name);
        forced.chain(bounded).chain(&grant.rule.forbidden)
    };
    for (key, _) in &members {
        if let Some(name) = ruled().find(|name| is_case_variant(key, name)) {
            // The forced name is not repeated: the client doesn't know it.
            let refusal = Refusal::new(
                Reason::CaseVariant,
                format!(
                    "the argument {} differs from a known one in case only",
                    named(key)
                ),
            );
            return Err(refusal.by(format!("{}[{name}]", grant.rule.path).into()));
        }
    }
    for name in &grant.rule.forbidden {
        if json::get(&members, name).is_some() {
            let message = format!("Argument {name} must not be given.");
            let rule = format!("{}.forbidden[{name}]", grant.rule.path);
            return Err(Refusal::new(Reason::ArgumentForbidden, message).by(rule.into()));
        }
    }
    let mut reported = Vec::new();
    for bound in &grant.rule.bounds {
        let value = json::get(&members, &bound.argument);
        if let Some(violation) = bound.bounds.violation(value) {
            if !bound.enforcement.is_enforced() {
                reported.push(Arc::clone(&bound.rule));
                continue;
            }
            let message = format!("Argument {} {violation}.", bound.argument);
            return Err(Refusal::new(Reason::ArgumentOutOfBounds, message).by(bound.rule.clone()));
        }
    }
    Ok(Rewrite {
        reported,
        ..force(&grant.forced, &members, body, params)
    })
}

/// Refuses arguments that would take too much memory as a tree of values: their digest and the check against a schema may
/// each make one.
pub(super) fn weigh(grant: &Grant, arguments: Option<&str>) -> Result<(), Refusal> {
    if arguments.is_some_and(|raw| json::is_heavier_than(raw, MAX_WEIGHT)) {
        let message = "The arguments have more values than can be checked. Send fewer.";
        return Err(Refusal::new(Reason::ArgumentInvalid, message).by(grant.rule.path.clone()));
    }
    Ok(())
}

/// Holds the final arguments of a call against the tool's own schema.
pub(super) fn fit(grant: &Grant, schema: &InputSchema, arguments: Option<&str>) -> Result<(), Refusal> {
    let given = arguments
        .filter(|raw| Kind::of(raw) == Kind::Object)
        .unwrap_or("{}");
    let Some(violation) = schema.violation(given) else {
        return Ok(());
    };
    let subject = match violation.argument {
        // The client doesn't know it, and can do nothing about it.
        Some(name) if grant.rule.hides(&name) => {
            return Err(Refusal::tool(Reason::ForcedArgumentInvalid, &grant.rule.name));
        }
        Some(name) => format!("Argument {}", shortened(&name)),
        None => "The arguments".to_owned(),
    };
    Err(Refusal::new(
        Reason::ArgumentInvalid,
        format!("{subject}: {}.", violation.message),
    ))
}

fn force(
    forced: &[ForcedArgument],
    members: &[(std::borrow::Cow<'_, str>, &str)],
    body: &[u8],
    params: &Params<'_>,
) -> Rewrite {
    let mut rewrite = Rewrite::default();
    let mut added = String::new();
    for argument in forced {
        match json::get(members, &argument.name) {
            Some(raw) if raw == argument.value => {}
            Some(raw) => {
                if !same_value(raw, &argument.value) {
                    rewrite.overridden.push(argument.name.clone());
                }
                rewrite.edits.push(Edit {
                    at: span(body, raw),
                    text: argument.value.clone(),
                });
            }
            None => {
                if !(added.is_empty() && members.is_empty()) {
                    added.push(',');
                }
                quote(&mut added, &argument.name);
                added.push(':');
                added.push_str(&argument.value);
            }
        }
    }
    if added.is_empty() {
        return rewrite;
    }
    let edit = match params.get("arguments") {
        Some(raw) if Kind::of(raw) == Kind::Object => {
            let end = span(body, raw).end - 1;
            Edit {
                at: end..end,
                text: added,
            }
        }
        Some(null) => Edit {
            at: span(body, null),
            text: format!("{{{added}}}"),
        },
        None => {
            let start = span(body, params.raw()).start + 1;
            let comma = if params.members().is_empty() { "" } else { "," };
            Edit {
                at: start..start,
                text: format!("\"arguments\":{{{added}}}{comma}"),
            }
        }
    };
    rewrite.edits.push(edit);
    rewrite
}

/// Whether two raw scalars are the same value, however they are written.
fn same_value(left: &str, right: &str) -> bool {
    match (Kind::of(left), Kind::of(right)) {
        (Kind::String, Kind::String) => json::string(left) == json::string(right),
        (Kind::Number, Kind::Number) => number::compare(left, right) == Some(std::cmp::Ordering::Equal),
        _ => left == right,
    }
}
