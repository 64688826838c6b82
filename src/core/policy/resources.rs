//! Resources and templates: which URIs exist for an agent.
//!
//! A rule is an exact URI, or a template of RFC 6570 with `{name}` and `{+name}`. A variable that
//! is forced has one value only: the agent's grant has it in place, so that another tenant's URI
//! matches nothing. URIs are compared byte for byte; what a server may take for another path than
//! it looks like (dot segments, and what could be written plainer: see [`spelling`]) matches no template.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt::Write,
    sync::Arc,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use regex::Regex;

use crate::{
    mcp::inventory::MAX_URI,
    policy::{
        compile::{CompileError, CompiledResults, Value, invalid, names_nothing, value_of},
        document::{Forced, Resource},
        persons::{Facts, NOBODY},
        records::{OwnedRule, ResultRule},
        spelling,
    },
    reason::Reason,
};

/// All but the unreserved characters (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The rule of a resource or template, for whomever it exists.
#[derive(Debug)]
pub(super) struct ResourceRule {
    /// `resources[URI]`
    pub path: Arc<str>,
    /// The URI or template, as the server knows it.
    pub uri: String,
    pub roles: BTreeSet<String>,
    parts: Vec<Part>,
    forced: BTreeMap<String, Forced>,
    results: Option<CompiledResults>,
}

impl ResourceRule {
    /// Whether agents get its contents filtered by owner.
    pub fn is_owned(&self) -> bool {
        self.results.as_ref().is_some_and(CompiledResults::is_owned)
    }
}

/// A resource or template.
#[derive(Debug)]
pub(super) struct ResourceOffer {
    pub rule: Arc<ResourceRule>,
    /// The grant of all who have a role for it, when nothing in it differs from caller to caller.
    of_all: Option<Arc<ResourceGrant>>,
}

impl ResourceOffer {
    /// The grant of a caller of whom this is known.
    pub(super) fn grant(&self, facts: Facts<'_>) -> Result<Arc<ResourceGrant>, Reason> {
        match &self.of_all {
            Some(grant) => Ok(Arc::clone(grant)),
            None => ResourceGrant::new(&self.rule, facts).map(Arc::new),
        }
    }
}

/// A resource or template as one agent may read it.
#[derive(Debug)]
pub(super) struct ResourceGrant {
    pub rule: Arc<ResourceRule>,
    /// The URI or template as the agent sees it: forced variables have their values.
    pub uri: String,
    /// Values of forced variables, by name.
    pub forced: BTreeMap<String, String>,
    /// What its contents must satisfy.
    pub results: Option<ResultRule>,
    /// Why nothing that it covers may be read: whose the records must be isn't known of this caller. It covers all the same,
    /// so that no laxer rule takes its place.
    pub blocked: Option<Reason>,
    /// `None`: the URI is exact.
    pattern: Option<Regex>,
}

#[derive(Debug)]
enum Part {
    Literal(String),
    /// `{name}`, or with `reserved` `{+name}`.
    Variable {
        name: String,
        reserved: bool,
    },
}

/// Compiles the rules.
pub(super) fn compile(resources: Vec<Resource>) -> Result<Vec<ResourceOffer>, CompileError> {
    let mut seen = HashSet::new();
    let mut offers = Vec::with_capacity(resources.len());
    for resource in resources {
        let rule = format!("resources[{}]", resource.uri);
        if !seen.insert(resource.uri.clone()) {
            return Err(invalid(rule, "is there twice"));
        }
        let parts = match parse(&resource.uri) {
            Ok(parts) => parts,
            Err(problem) => return Err(invalid(rule, problem)),
        };
        for (name, forced) in &resource.forced {
            let known = parts
                .iter()
                .any(|part| matches!(part, Part::Variable { name: variable, .. } if variable == name));
            if !known {
                return Err(invalid(
                    format!("{rule}.forced[{name}]"),
                    "is no variable of the template",
                ));
            }
            if names_nothing(forced) {
                return Err(invalid(
                    format!("{rule}.forced[{name}]"),
                    "names no attribute or claim",
                ));
            }
        }
        let results = CompiledResults::compile(resource.results, &rule)?;
        let rule = Arc::new(ResourceRule {
            path: rule.into(),
            uri: resource.uri,
            roles: resource.roles,
            parts,
            forced: resource.forced,
            results,
        });
        offers.push(ResourceOffer {
            // What takes nothing of its caller is the same for everybody.
            of_all: ResourceGrant::new(&rule, NOBODY)
                .ok()
                .filter(|grant| grant.blocked.is_none())
                .map(Arc::new),
            rule,
        });
    }
    Ok(offers)
}

fn parse(uri: &str) -> Result<Vec<Part>, &'static str> {
    const SYNTAX: &str =
        "has braces that are neither {name} nor {+name}, with letters, digits and underscores in the name";
    if uri.is_empty() || uri.len() > MAX_URI || uri.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("is no URI");
    }
    let mut parts = Vec::new();
    let mut names = HashSet::new();
    let mut rest = uri;
    while !rest.is_empty() {
        let (literal, after) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
        if literal.contains('}') {
            return Err(SYNTAX);
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.to_owned()));
        }
        let Some(expression) = after.strip_prefix('{') else {
            break;
        };
        let (expression, after) = expression.split_once('}').ok_or(SYNTAX)?;
        let name = expression.strip_prefix('+').unwrap_or(expression);
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(SYNTAX);
        }
        if !names.insert(name) {
            return Err("has a variable twice");
        }
        if matches!(parts.last(), Some(Part::Variable { .. })) {
            return Err("has two variables with nothing between them");
        }
        parts.push(Part::Variable {
            name: name.to_owned(),
            reserved: name.len() < expression.len(),
        });
        rest = after;
    }
    Ok(parts)
}

impl ResourceGrant {
    /// The grant of a caller of whom this is known.
    pub(super) fn new(rule: &Arc<ResourceRule>, facts: Facts<'_>) -> Result<Self, Reason> {
        let mut uri = String::with_capacity(rule.uri.len());
        let mut pattern = String::from("^");
        let mut values = BTreeMap::new();
        let mut open = false;
        for part in &rule.parts {
            match part {
                Part::Literal(text) => {
                    uri.push_str(text);
                    pattern.push_str(&regex::escape(text));
                }
                Part::Variable { name, reserved } => {
                    if let Some(forced) = rule.forced.get(name) {
                        let text = match value_of(forced, facts)? {
                            Value::Text(text) => text.to_owned(),
                            Value::Int(int) => int.to_string(),
                            Value::Bool(value) => value.to_string(),
                        };
                        let expanded = expand(&text);
                        uri.push_str(&expanded);
                        pattern.push_str(&regex::escape(&expanded));
                        values.insert(name.clone(), text);
                        continue;
                    }
                    open = true;
                    let plus = if *reserved { "+" } else { "" };
                    // Writing to a string can't fail.
                    let _ = write!(uri, "{{{plus}{name}}}");
                    pattern.push_str(if *reserved {
                        r"([^\s\\]+)"
                    } else {
                        r"([^/?#\s\\]+)"
                    });
                }
            }
        }
        pattern.push('$');
        let pattern = if open {
            Some(Regex::new(&pattern).map_err(|_| Reason::ResourceNotGranted)?)
        } else {
            None
        };
        let results = rule.results.as_ref().map(|results| results.resolve(facts));
        let (results, blocked) = match results.transpose() {
            Ok(results) => (results, None),
            Err(reason) => (None, Some(reason)),
        };
        Ok(Self {
            rule: Arc::clone(rule),
            uri,
            forced: values,
            results,
            blocked,
            pattern,
        })
    }

    /// Whether the URIs that it covers could themselves tell of records that it filters.
    pub(super) fn names_records(&self) -> bool {
        !self.is_exact() && self.rule.is_owned()
    }

    /// Whether some URI may be of both, by what comes before the first variable of each.
    pub(super) fn may_meet(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.beginning(), other.beginning());
        if other.is_exact() {
            self.covers(&other.uri)
        } else {
            ours.starts_with(theirs) || theirs.starts_with(ours)
        }
    }

    /// The rule of its contents with its ownership filter, if it has one.
    pub(super) fn owned(&self) -> Option<(&ResultRule, &OwnedRule)> {
        let rule = self.results.as_ref()?;
        Some((rule, rule.owned.as_ref()?))
    }

    /// Whether it is the rule of one URI.
    pub(super) fn is_exact(&self) -> bool {
        self.pattern.is_none()
    }

    /// Whether a server may take a URI, which another rule covers, for one of this rule's: another spelling of its own, or of how
    /// those of the template begin.
    pub(super) fn is_respelt(&self, uri: &str, by: &Self) -> bool {
        if self.is_exact() {
            spelling::is_of(&self.uri, uri, by.beginning())
        } else {
            spelling::begins_with(self.beginning(), uri)
        }
    }

    /// What comes before the first variable.
    fn beginning(&self) -> &str {
        self.uri.split('{').next().unwrap_or_default()
    }

    /// Whether it is the rule of this URI.
    pub(super) fn covers(&self, uri: &str) -> bool {
        let Some(pattern) = &self.pattern else {
            return uri == self.uri;
        };
        uri.len() <= MAX_URI
            && !has_dot_segment(uri)
            && pattern.captures(uri).is_some_and(|found| {
                let mut values = found.iter().skip(1).flatten();
                values.all(|value| !spelling::is_disguised(&uri[..value.start()], value.as_str()))
            })
    }

    /// Whether it is the rule of this template, as the server writes it.
    pub(super) fn is_template(&self, template: &str) -> bool {
        self.rule.uri == template
    }
}

/// Simple expansion of RFC 6570: all but unreserved characters are percent-encoded.
fn expand(value: &str) -> String {
    utf8_percent_encode(value, RESERVED).to_string()
}

fn has_dot_segment(uri: &str) -> bool {
    uri.split(['/', '?', '#'])
        .any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(uri: &str, forced: &[(&str, Forced)]) -> ResourceGrant {
        let resource = Resource {
            uri: uri.into(),
            roles: BTreeSet::from(["reader".into()]),
            forced: forced
                .iter()
                .map(|(name, forced)| ((*name).to_owned(), forced.clone()))
                .collect(),
            results: None,
        };
        let offers = compile(vec![resource]).unwrap();
        let attributes = BTreeMap::from([("place".into(), "n y".into())]);
        let facts = Facts {
            attributes: &attributes,
            person: None,
        };
        ResourceGrant::new(&offers[0].rule, facts).unwrap()
    }

    #[test]
    fn a_template_covers_what_it_stands_for_and_nothing_that_climbs_out_of_it() {
        let cases: &[(&str, &[(&str, bool)])] = &[
            (
                "docs://handbook",
                &[
                    ("docs://handbook", true),
                    ("docs://handbook/", false),
                    ("DOCS://handbook", false),
                    ("docs://handbook?x", false),
                ],
            ),
            (
                "notes://{id}/text",
                &[
                    ("notes://7/text", true),
                    ("notes://a%20b/text", true),
                    ("notes://\u{e9}/text", true),
                    ("notes:///text", false),
                    ("notes://7/8/text", false),
                    ("notes://7?x/text", false),
                    ("notes://7#/text", false),
                    ("notes://../text", false),
                    ("notes://%2e%2e/text", false),
                    ("notes://7%2F8/text", false),
                    ("notes://7%252F8/text", false),
                    ("notes://7\\8/text", false),
                    ("notes://%37/text", false),
                    ("notes://a%7Eb/text", false),
                    ("notes://100%/text", false),
                    ("notes://%+7/text", false),
                    ("notes://%zz/text", false),
                    ("notes://7%00/text", false),
                    ("notes://7 8/text", false),
                    ("notes://7/text\n", false),
                    ("x-notes://7/text", false),
                ],
            ),
            (
                "file:///data/{+path}",
                &[
                    ("file:///data/a/b.txt", true),
                    ("file:///data/a/../../etc", false),
                    ("file:///data/./a", false),
                    ("file:///data/a%2e%2e/b", false),
                    ("file:///data/", false),
                ],
            ),
        ];
        for (template, uris) in cases {
            let grant = grant(template, &[]);
            assert_eq!(&grant.uri, template);
            for (uri, covered) in *uris {
                assert_eq!(grant.covers(uri), *covered, "{template} {uri}");
            }
        }
    }

    #[test]
    fn a_forced_variable_has_its_one_value() {
        let forced = [
            ("tenant", Forced::String("ac/me".into())),
            ("place", Forced::Agent("place".into())),
        ];
        let grant = grant("crm://{tenant}/{place}/{id}", &forced);
        assert_eq!(grant.uri, "crm://ac%2Fme/n%20y/{id}");
        assert!(grant.covers("crm://ac%2Fme/n%20y/7"));
        for uri in [
            "crm://globex/n%20y/7",
            "crm://ac/me/n%20y/7",
            "crm://ac%2fme/n%20y/7",
            "crm://{tenant}/n%20y/7",
        ] {
            assert!(!grant.covers(uri), "{uri}");
        }
        assert!(grant.is_template("crm://{tenant}/{place}/{id}"));
        assert_eq!(grant.forced["place"], "n y");
    }

    #[test]
    fn a_rule_that_is_no_uri_or_template_is_refused() {
        for uri in [
            "",
            "a b",
            "a://{",
            "a://}",
            "a://{}",
            "a://{a b}",
            "a://{?q}",
            "a://{a,b}",
            "a://{a}/{a}",
            "a://{a}{b}",
            "a://\u{7}",
        ] {
            assert!(parse(uri).is_err(), "{uri}");
        }
        let unknown = Resource {
            uri: "a://{id}".into(),
            roles: BTreeSet::new(),
            forced: BTreeMap::from([("tenant".into(), Forced::Int(1))]),
            results: None,
        };
        assert!(compile(vec![unknown]).is_err());
    }

    #[test]
    fn an_agent_without_the_attribute_has_no_grant() {
        let resource = Resource {
            uri: "a://{place}/{id}".into(),
            roles: BTreeSet::new(),
            forced: BTreeMap::from([("place".into(), Forced::Agent("place".into()))]),
            results: None,
        };
        let offers = compile(vec![resource]).unwrap();
        assert_eq!(offers[0].grant(NOBODY).err(), Some(Reason::AgentAttributeMissing));
    }
}
