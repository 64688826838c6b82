//! What a server may ask of a client: the capabilities that it is told of are those that the client
//! has *and* the policy grants, so that it doesn't wait for what doesn't pass.

use std::borrow::Cow;

use crate::{
    json::{self, Kind, text::is_case_variant},
    mcp::{
        Era, Params,
        envelope::span,
        methods::Method,
        version::{self, META_CAPABILITIES},
    },
    policy::{
        capabilities::TASKS,
        document::{ClientFeatures, ElicitationMode},
        lists::object,
        splice::Edit,
    },
    reason::Reason,
    refusal::Refusal,
};

/// `_meta` key of the least level of log messages that a modern client wants.
const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// The rule by which a server may ask a client this, or `None`. `params` says in which mode the user
/// is asked.
pub(in crate::policy) fn granted(
    features: &ClientFeatures,
    method: Method,
    params: Option<&str>,
) -> Option<&'static str> {
    match method {
        Method::Ping => Some("methods[ping]"),
        Method::CreateMessage if features.sampling => Some("clientFeatures.sampling"),
        Method::RootsList if features.roots => Some("clientFeatures.roots"),
        Method::Elicit => elicitation(features, params?),
        _ => None,
    }
}

fn elicitation(features: &ClientFeatures, params: &str) -> Option<&'static str> {
    let members = json::members(params)?;
    if members
        .iter()
        .any(|(key, _)| is_case_variant(key, "mode") || is_case_variant(key, "url"))
    {
        return None;
    }
    let mode = match json::get(&members, "mode") {
        None => Cow::Borrowed("form"),
        Some(raw) => json::string(raw)?,
    };
    let granted = match &*mode {
        "form" => {
            features.elicitation.contains(&ElicitationMode::Form) && json::get(&members, "url").is_none()
        }
        // No other scheme: a client would open `file:`, `data:` and what is registered on its machine.
        "url" => {
            features.elicitation.contains(&ElicitationMode::Url)
                && json::get(&members, "url")
                    .and_then(json::string)
                    .is_some_and(|url| url.starts_with("https://"))
        }
        _ => false,
    };
    granted.then_some("clientFeatures.elicitation")
}

/// A handshake: a server is asked for no version that isn't spoken here, and told of no capability
/// that isn't granted.
pub(super) fn negotiate(
    features: &ClientFeatures,
    body: &[u8],
    params: Option<&Params<'_>>,
    edits: &mut Vec<Edit>,
) -> Result<(), Refusal> {
    let params = params.ok_or_else(|| Refusal::new(Reason::InvalidParams, "params is missing"))?;
    let invalid = |key| {
        Refusal::new(
            Reason::InvalidParams,
            format!("params.{key} is missing or of the wrong type"),
        )
    };
    let requested = params
        .get("protocolVersion")
        .ok_or_else(|| invalid("protocolVersion"))?;
    let text = json::string(requested).ok_or_else(|| invalid("protocolVersion"))?;
    let version = version::negotiated(&text);
    if version.as_str() != text {
        edits.push(Edit {
            at: span(body, requested),
            text: json::text::quoted(version.as_str()),
        });
    }
    let capabilities = params
        .get("capabilities")
        .ok_or_else(|| invalid("capabilities"))?;
    let kept = capabilities_of(features, Era::Legacy, capabilities).ok_or_else(|| invalid("capabilities"))?;
    if let Cow::Owned(text) = kept {
        edits.push(Edit {
            at: span(body, capabilities),
            text,
        });
    }
    Ok(())
}

/// The same for a modern request, which says its capabilities each time.
pub(super) fn declare(
    features: &ClientFeatures,
    body: &[u8],
    params: Option<&Params<'_>>,
    edits: &mut Vec<Edit>,
) -> Result<(), Refusal> {
    let lack = || {
        let lack = format!("params._meta lacks {META_CAPABILITIES}, or it is no object");
        Refusal::new(Reason::MetaMissing, lack)
    };
    let raw = params.and_then(|params| params.get("_meta")).ok_or_else(lack)?;
    let meta = json::members(raw).ok_or_else(lack)?;
    if meta.iter().any(|(key, _)| is_case_variant(key, META_LOG_LEVEL)) {
        return Err(Refusal::plain(Reason::CaseVariant));
    }
    let capabilities = json::get(&meta, META_CAPABILITIES).ok_or_else(lack)?;
    let kept = capabilities_of(features, Era::Modern, capabilities).ok_or_else(lack)?;
    let withhold_log = !features.logging && json::get(&meta, META_LOG_LEVEL).is_some();
    if matches!(kept, Cow::Borrowed(_)) && !withhold_log {
        return Ok(());
    }
    let text = object(meta.iter().filter_map(|(key, raw)| match key.as_ref() {
        META_CAPABILITIES => Some((key.as_ref(), &*kept)),
        META_LOG_LEVEL if withhold_log => None,
        _ => Some((key.as_ref(), *raw)),
    }));
    edits.push(Edit {
        at: span(body, raw),
        text,
    });
    Ok(())
}

/// Whether a modern request declares the extension of tasks.
pub(super) fn declares_tasks(params: Option<&Params<'_>>) -> bool {
    let member =
        |raw: &str, key: &str| -> Option<String> { json::get(&json::members(raw)?, key).map(str::to_owned) };
    params
        .and_then(|params| params.get("_meta"))
        .and_then(|meta| member(meta, META_CAPABILITIES))
        .and_then(|capabilities| member(&capabilities, "extensions"))
        .and_then(|extensions| member(&extensions, TASKS))
        .is_some_and(|tasks| Kind::of(&tasks) == Kind::Object)
}

/// The capabilities that are granted, of those that a client has. Borrowed: all of them.
fn capabilities_of<'a>(features: &ClientFeatures, era: Era, raw: &'a str) -> Option<Cow<'a, str>> {
    if Kind::of(raw) != Kind::Object {
        return None;
    }
    let members = json::members(raw)?;
    let mut changed = false;
    let mut kept: Vec<(&str, Cow<'a, str>)> = Vec::new();
    for (key, raw) in &members {
        let text = match key.as_ref() {
            "sampling" if features.sampling => Some(Cow::Borrowed(*raw)),
            "roots" if features.roots => Some(Cow::Borrowed(*raw)),
            "elicitation" => modes_of(features, raw),
            "extensions" if era == Era::Modern => only(raw, &[TASKS]),
            _ => None,
        };
        changed |= !matches!(text, Some(Cow::Borrowed(_)));
        kept.extend(text.map(|text| (key.as_ref(), text)));
    }
    Some(if changed {
        Cow::Owned(object(kept.iter().map(|(key, text)| (*key, &**text))))
    } else {
        Cow::Borrowed(raw)
    })
}

/// The modes of elicitation that are granted, of those that a client has. None named means forms.
fn modes_of<'a>(features: &ClientFeatures, raw: &'a str) -> Option<Cow<'a, str>> {
    let has = |mode| features.elicitation.contains(&mode);
    let names: Vec<&str> = [("form", ElicitationMode::Form), ("url", ElicitationMode::Url)]
        .into_iter()
        .filter(|(_, mode)| has(*mode))
        .map(|(name, _)| name)
        .collect();
    if json::members(raw)?.is_empty() {
        return has(ElicitationMode::Form).then_some(Cow::Borrowed(raw));
    }
    only(raw, &names)
}

/// An object with these members only, or `None` when it has none of them.
fn only<'a>(raw: &'a str, names: &[&str]) -> Option<Cow<'a, str>> {
    let members = json::members(raw)?;
    let kept: Vec<_> = members
        .iter()
        .filter(|(key, _)| names.contains(&key.as_ref()))
        .collect();
    if kept.is_empty() {
        None
    } else if kept.len() == members.len() {
        Some(Cow::Borrowed(raw))
    } else {
        Some(Cow::Owned(object(
            kept.into_iter().map(|(key, raw)| (key.as_ref(), *raw)),
        )))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn features(names: &[&str]) -> ClientFeatures {
        let has = |name: &str| names.contains(&name);
        let modes = [("form", ElicitationMode::Form), ("url", ElicitationMode::Url)];
        ClientFeatures {
            sampling: has("sampling"),
            roots: has("roots"),
            logging: has("logging"),
            elicitation: modes
                .into_iter()
                .filter(|(name, _)| has(name))
                .map(|(_, mode)| mode)
                .collect::<BTreeSet<_>>(),
        }
    }

    #[test]
    fn a_server_is_told_of_what_a_client_has_and_the_policy_grants() {
        let all = r#"{"sampling":{"tools":{}},"roots":{"listChanged":true},"elicitation":{"form":{},"url":{}},"experimental":{"x":{}}}"#;
        let cases: &[(&[&str], &str, &str)] = &[
            (&[], all, "{}"),
            (&["sampling"], all, r#"{"sampling":{"tools":{}}}"#),
            (&["roots"], all, r#"{"roots":{"listChanged":true}}"#),
            (&["form"], all, r#"{"elicitation":{"form":{}}}"#),
            (&["form", "url"], all, r#"{"elicitation":{"form":{},"url":{}}}"#),
            (&["form"], r#"{"elicitation":{}}"#, r#"{"elicitation":{}}"#),
            (&["url"], r#"{"elicitation":{}}"#, "{}"),
            (&["url"], r#"{"elicitation":{"form":{}}}"#, "{}"),
            (&["sampling"], r#"{ "sampling" : {} }"#, r#"{ "sampling" : {} }"#),
            (&[], "{}", "{}"),
            (
                &[],
                r#"{"extensions":{"io.modelcontextprotocol/tasks":{},"x/y":{}}}"#,
                r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#,
            ),
            (&[], r#"{"extensions":{"x/y":{}}}"#, "{}"),
        ];
        for (granted, has, told) in cases {
            let features = features(granted);
            let kept = capabilities_of(&features, Era::Modern, has).unwrap();
            assert_eq!(&kept, told, "{granted:?} {has}");
            let again = capabilities_of(&features, Era::Modern, &kept).unwrap();
            assert!(matches!(again, Cow::Borrowed(_)), "{granted:?} {has}");
        }
        assert!(capabilities_of(&features(&[]), Era::Legacy, "[]").is_none());
    }

    #[test]
    fn a_server_asks_for_what_is_granted_only() {
        let cases: &[(&[&str], Method, &str, bool)] = &[
            (&[], Method::Ping, "{}", true),
            (&[], Method::CreateMessage, "{}", false),
            (&["sampling"], Method::CreateMessage, "{}", true),
            (&["sampling"], Method::RootsList, "{}", false),
            (&["roots"], Method::RootsList, "{}", true),
            (&["form"], Method::Elicit, "{}", true),
            (&["form"], Method::Elicit, r#"{"mode":"form"}"#, true),
            (&["url"], Method::Elicit, "{}", false),
            (
                &["form"],
                Method::Elicit,
                r#"{"mode":"url","url":"https://a"}"#,
                false,
            ),
            (
                &["url"],
                Method::Elicit,
                r#"{"mode":"url","url":"https://a"}"#,
                true,
            ),
            (
                &["url"],
                Method::Elicit,
                r#"{"mode":"url","url":"javascript:a"}"#,
                false,
            ),
            (&["url"], Method::Elicit, r#"{"mode":"url"}"#, false),
            (
                &["form"],
                Method::Elicit,
                r#"{"mode":"form","url":"https://a"}"#,
                false,
            ),
            (
                &["form"],
                Method::Elicit,
                r#"{"Mode":"url","url":"https://a"}"#,
                false,
            ),
            (&["form", "url"], Method::Elicit, r#"{"mode":"voice"}"#, false),
            (&["form", "sampling"], Method::ToolsCall, "{}", false),
        ];
        for (granted_, method, params, passes) in cases {
            let rule = granted(&features(granted_), *method, Some(params));
            assert_eq!(rule.is_some(), *passes, "{granted_:?} {method} {params}");
        }
    }
}
