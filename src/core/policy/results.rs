//! Results that carry handles or name resources: what asks for input, tasks, contents.

use crate::{
    handles::{Handle, Handles},
    json::{self, Kind, Members, text::quoted},
    mcp::{Era, methods::Method},
    policy::{
        answer::{FinalAnswer, malformed},
        calls,
        compile::{CompiledAgent, CompiledPolicy, Grant},
        decide::{Context, feature_granted},
        lists::object,
        permit::Expected,
    },
    reason::Reason,
    refusal::{Refusal, tool_error},
};

/// `resultType: input_required` (SEP-2322): the server asks for what is granted, and its state
/// comes back for the same method and name only.
pub(super) fn input_required(
    policy: &CompiledPolicy,
    expected: &Expected,
    members: &Members<'_>,
    handles: Handles<'_>,
) -> Result<String, Refusal> {
    if !matches!(
        expected.method,
        Method::ToolsCall | Method::PromptsGet | Method::ResourcesRead
    ) {
        return Err(Refusal::plain(Reason::AnswerType));
    }
    check_inputs(policy, members)?;
    let state = match json::get(members, "requestState") {
        None => None,
        Some(raw) => {
            let value = json::string(raw).ok_or_else(|| malformed("its requestState is no string"))?;
            let handle = Handle::State {
                method: expected.method.name().to_owned(),
                name: expected.name.clone().unwrap_or_default(),
                value: value.into_owned(),
            };
            Some(quoted(&seal(handles, &handle)?))
        }
    };
    Ok(object(members.iter().filter_map(
        |(key, raw)| match key.as_ref() {
            "requestState" => state.as_deref().map(|state| (key.as_ref(), state)),
            "resultType" | "inputRequests" | "_meta" => Some((key.as_ref(), *raw)),
            _ => None,
        },
    )))
}

/// `resultType: task` (SEP-2663): a call of a tool goes on as a task.
pub(super) fn task_created(
    expected: &Expected,
    members: &Members<'_>,
    handles: Handles<'_>,
    filtered: bool,
) -> Result<String, Refusal> {
    if expected.method != Method::ToolsCall {
        return Err(Refusal::plain(Reason::AnswerType));
    }
    with_task(expected, members, handles, filtered, None)
}

/// The result of `tasks/get`.
pub(super) fn task(
    policy: &CompiledPolicy,
    agent: &CompiledAgent,
    expected: &Expected,
    members: &Members<'_>,
    context: Context<'_>,
    answer: &mut FinalAnswer,
) -> Result<String, Refusal> {
    let grant = calls::grant_of(policy, agent, expected)?;
    let filtered = grant.rule.is_owned();
    if json::get(members, "inputRequests").is_some() {
        if filtered {
            return Err(Refusal::plain(Reason::AnswerUnfiltered));
        }
        check_inputs(policy, members)?;
    }
    let result = match json::get(members, "result") {
        None => None,
        Some(raw) => Some(task_result(grant, raw, context, answer)?),
    };
    with_task(
        expected,
        members,
        context.handles(agent),
        filtered,
        result.as_deref(),
    )
}

/// What the call came to that has become a task. What is wrong with it is told in its place.
fn task_result(
    grant: &Grant,
    raw: &str,
    context: Context<'_>,
    answer: &mut FinalAnswer,
) -> Result<String, Refusal> {
    let members = json::members(raw).ok_or_else(|| malformed("its result is no object"))?;
    match calls::result(grant.results.as_ref(), raw, &members, Era::Modern, context.limits) {
        Ok(checked) => {
            answer.failed = checked.failed;
            answer.records = checked.records;
            answer.reported = checked.reported;
            Ok(checked.text.unwrap_or_else(|| raw.to_owned()))
        }
        Err(refusal) if refusal.is_correctable() => {
            answer.failed = true;
            Ok(tool_error(&refusal.message, Era::Modern))
        }
        Err(refusal) => Err(refusal),
    }
}

/// Members of a task that are no words of the server.
const OF_TASK: [&str; 10] = [
    "resultType",
    "taskId",
    "status",
    "createdAt",
    "lastUpdatedAt",
    "ttl",
    "ttlMs",
    "pollInterval",
    "pollIntervalMs",
    "result",
];

fn with_task(
    expected: &Expected,
    members: &Members<'_>,
    handles: Handles<'_>,
    filtered: bool,
    result: Option<&str>,
) -> Result<String, Refusal> {
    let id = json::get(members, "taskId")
        .and_then(json::string)
        .ok_or_else(|| malformed("it has no taskId"))?;
    let handle = Handle::Task {
        tool: expected.name.clone().unwrap_or_default(),
        id: id.into_owned(),
    };
    let sealed = quoted(&seal(handles, &handle)?);
    let error = json::get(members, "error").map(calls::error);
    Ok(object(members.iter().filter_map(|(key, raw)| {
        let key = key.as_ref();
        let raw = match key {
            "taskId" => sealed.as_str(),
            // Of a filtered tool only what the filter has made.
            "result" => match result {
                None if filtered => return None,
                result => result.unwrap_or(raw),
            },
            "error" if filtered => error.as_deref()?,
            key if filtered && !OF_TASK.contains(&key) => return None,
            _ => raw,
        };
        Some((key, raw))
    })))
}

/// Everything that is asked for must be granted: an answer that can't be completed isn't begun.
fn check_inputs(policy: &CompiledPolicy, members: &Members<'_>) -> Result<(), Refusal> {
    let Some(raw) = json::get(members, "inputRequests") else {
        return Ok(());
    };
    let requests = json::members(raw).ok_or_else(|| malformed("its inputRequests are no object"))?;
    for (_, raw) in &requests {
        let request = json::members(raw).ok_or_else(|| malformed("an input request is no object"))?;
        let method = json::get(&request, "method")
            .and_then(json::string)
            .and_then(|name| Method::parse(&name))
            .filter(|method| *method != Method::Ping);
        let params = json::get(&request, "params").unwrap_or("{}");
        let granted = method
            .filter(|_| Kind::of(params) == Kind::Object)
            .and_then(|method| feature_granted(&policy.features, method, Some(params)));
        if granted.is_none() {
            return Err(Refusal::plain(Reason::AnswerFeature));
        }
    }
    Ok(())
}

fn seal(handles: Handles<'_>, handle: &Handle) -> Result<String, Refusal> {
    handles
        .seal(handle)
        .ok_or_else(|| Refusal::plain(Reason::AnswerHandle))
}
