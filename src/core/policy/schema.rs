//! Taking forced and forbidden arguments out of a tool's `inputSchema`.
//!
//! Such an argument is an entry of the root's `properties`, and a forced one may be in `required`. Where
//! the schema speaks of it in any other way, taking it out would leave a schema that asks for what is
//! hidden or says that it is there, so the tool isn't offered at all.

use std::sync::Arc;

use crate::{
    json::{self, Token, text::is_case_variant},
    policy::lists::object,
    reason::Reason,
};

/// Keywords of the root that can speak of properties without naming them.
const INDIRECT: [&str; 4] = ["$ref", "$dynamicRef", "$recursiveRef", "patternProperties"];

/// The schema without the forced and the forbidden arguments.
pub(super) fn without(schema: &str, forced: &[Arc<str>], forbidden: &[Arc<str>]) -> Result<String, Reason> {
    let members = json::members(schema).ok_or(Reason::ToolMalformed)?;
    let is_forced = |name: &str| forced.iter().any(|forced| **forced == *name);
    let is_forbidden = |name: &str| forbidden.iter().any(|forbidden| **forbidden == *name);
    let is_hidden = |name: &str| is_forced(name) || is_forbidden(name);
    let mut out: Vec<(&str, String)> = Vec::with_capacity(members.len());
    let mut declared = 0;
    for (key, raw) in &members {
        let text = match key.as_ref() {
            "properties" => {
                let properties = json::members(raw).ok_or(Reason::ToolMalformed)?;
                let variant = |name: &str| {
                    let mut hidden = forced.iter().chain(forbidden);
                    hidden.any(|hidden| is_case_variant(name, hidden))
                };
                if properties.iter().any(|(name, _)| variant(name)) {
                    return Err(Reason::ArgumentEntangled);
                }
                declared = properties.iter().filter(|(name, _)| is_forced(name)).count();
                let kept = properties.iter().filter(|(name, _)| !is_hidden(name));
                object(kept.map(|(name, raw)| (name.as_ref(), *raw)))
            }
            "required" => {
                let mut names = json::items(raw).ok_or(Reason::ToolMalformed)?;
                names.retain(|raw| !json::string(raw).is_some_and(|name| is_forced(&name)));
                // Forbidden and required at once: no call would do.
                if names
                    .iter()
                    .any(|raw| json::string(raw).is_some_and(|name| is_forbidden(&name)))
                {
                    return Err(Reason::ArgumentEntangled);
                }
                format!("[{}]", names.join(","))
            }
            key if INDIRECT.contains(&key) || mentions(raw, &is_hidden) => {
                return Err(Reason::ArgumentEntangled);
            }
            _ => (*raw).to_owned(),
        };
        if refers_to_properties(&text) {
            return Err(Reason::ArgumentEntangled);
        }
        out.push((key.as_ref(), text));
    }
    if declared < forced.len() {
        return Err(Reason::ForcedArgumentUndeclared);
    }
    Ok(object(out.iter().map(|(key, text)| (*key, text.as_str()))))
}

/// Whether a keyword's value has a hidden name as a key or a text, at any depth.
fn mentions(raw: &str, is_hidden: &impl Fn(&str) -> bool) -> bool {
    json::any_token(raw, &mut |token| match token {
        Token::Member(name, _) | Token::Text(name) => is_hidden(name),
    })
}

/// Whether a reference leads into the root's properties, or out of the document. The former may
/// lead to what was taken out, the latter anywhere.
fn refers_to_properties(raw: &str) -> bool {
    json::any_token(raw, &mut |token| match token {
        Token::Member("$ref" | "$dynamicRef" | "$recursiveRef", raw) => !json::string(raw)
            .is_some_and(|target| target.starts_with("#/$defs/") || target.starts_with("#/definitions/")),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(schema: &str) -> Result<String, Reason> {
        without(schema, &["tenant".into(), "place".into()], &[])
    }

    const BOTH: &str = r#""properties":{"tenant":{"type":"string"},"place":{},"limit":{"maximum": 1e2}}"#;

    #[test]
    fn forced_arguments_are_taken_out_and_the_rest_keeps_its_bytes() {
        let cases = [
            (format!("{{{BOTH}}}"), r#"{"properties":{"limit":{"maximum": 1e2}}}"#),
            (
                format!(r#"{{"type":"object","additionalProperties":false,{BOTH},"required":["tenant","limit","place"],"x-vendor":[1.0]}}"#),
                r#"{"type":"object","additionalProperties":false,"properties":{"limit":{"maximum": 1e2}},"required":["limit"],"x-vendor":[1.0]}"#,
            ),
            (
                r#"{"properties":{"t\u0065nant":{},"place":{},"filter":{"properties":{"tenant":{}}}},"required":["t\u0065nant"]}"#.into(),
                r#"{"properties":{"filter":{"properties":{"tenant":{}}}},"required":[]}"#,
            ),
            (
                r##"{"properties":{"tenant":{},"place":{},"f":{"$ref":"#/$defs/F"}},"$defs":{"F":{"type":"string"}}}"##.into(),
                r##"{"properties":{"f":{"$ref":"#/$defs/F"}},"$defs":{"F":{"type":"string"}}}"##,
            ),
        ];
        for (schema, expected) in cases {
            assert_eq!(strip(&schema).as_deref(), Ok(expected), "{schema}");
        }
    }

    #[test]
    fn a_forced_argument_that_is_mentioned_elsewhere_takes_the_tool_with_it() {
        let keywords = [
            r#""anyOf":[{"required":["tenant"]}]"#,
            r#""oneOf":[{"properties":{"place":{}}}]"#,
            r#""allOf":[{"properties":{"a":{"required":["tenant"]}}}]"#,
            r#""not":{"required":["tenant"]}"#,
            r#""if":{"properties":{"tenant":{"const":"a"}}}"#,
            r#""then":{"required":["place"]}"#,
            r#""else":{"required":["place"]}"#,
            r#""dependentRequired":{"limit":["tenant"]}"#,
            r#""dependentSchemas":{"tenant":{}}"#,
            r#""dependencies":{"tenant":["limit"]}"#,
            r#""patternProperties":{"^ten":{}}"#,
            r##""$ref":"#/$defs/A""##,
            r#""$defs":{"A":{"properties":{"tenant":{}}}}"#,
            r#""propertyNames":{"enum":["t\u0065nant"]}"#,
            r#""examples":[{"tenant":"a"}]"#,
            r#""default":{"place":"a"}"#,
            r##""allOf":[{"$ref":"#/properties/tenant"}]"##,
            r##""allOf":[{"$ref":"#"}]"##,
            r#""allOf":[{"$ref":"https://example.com/s"}]"#,
        ];
        for keyword in keywords {
            let schema = format!("{{{BOTH},{keyword}}}");
            assert_eq!(strip(&schema), Err(Reason::ArgumentEntangled), "{schema}");
        }
        let variant = r#"{"properties":{"tenant":{},"place":{},"Tenant":{}}}"#;
        assert_eq!(strip(variant), Err(Reason::ArgumentEntangled));
    }

    #[test]
    fn forbidden_arguments_are_taken_out_where_they_are() {
        let strip = |schema: &str| without(schema, &[], &["all".into()]);
        let kept = r#"{"properties":{"q":{}},"required":["q"]}"#;
        for schema in [kept, r#"{"properties":{"q":{},"all":{}},"required":["q"]}"#] {
            assert_eq!(strip(schema).as_deref(), Ok(kept), "{schema}");
        }
        for schema in [
            r#"{"properties":{"q":{},"all":{}},"required":["all"]}"#,
            r#"{"properties":{"q":{},"ALL":{}}}"#,
            r#"{"properties":{"q":{}},"anyOf":[{"required":["all"]}]}"#,
            r#"{"properties":{"q":{}},"patternProperties":{".*":{}}}"#,
        ] {
            assert_eq!(strip(schema), Err(Reason::ArgumentEntangled), "{schema}");
        }
    }

    #[test]
    fn a_forced_argument_that_the_tool_does_not_have_takes_the_tool_with_it() {
        for schema in [
            "{}",
            r#"{"properties":{"tenant":{}}}"#,
            r#"{"properties":{"tenant_id":{},"place":{}}}"#,
        ] {
            assert_eq!(strip(schema), Err(Reason::ForcedArgumentUndeclared), "{schema}");
        }
        for schema in ["true", r#"{"properties":[]}"#, r#"{"required":"tenant"}"#] {
            assert_eq!(strip(schema), Err(Reason::ToolMalformed), "{schema}");
        }
    }
}
