//! Tools and prompts: things with a name and arguments, the rules about them, and the grants that
//! agents have of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{CompileError, accepted, invalid, results::CompiledResults};
use crate::{
    json::text::{quoted, same_ignoring_case},
    mcp::fingerprint::Fingerprint,
    policy::{
        bounds::{self, CompiledBounds},
        document::{Callable, Enforcement, Forced},
        persons::{Facts, NOBODY},
        records::ResultRule,
    },
    reason::Reason,
};

/// Tools, or prompts, by name.
#[derive(Debug)]
pub(in crate::policy) struct Callables {
    offers: HashMap<Arc<str>, Offer>,
    written: Written,
}

/// Writes a forced value.
type Written = fn(&Value<'_>) -> String;

/// A tool or a prompt.
#[derive(Debug)]
struct Offer {
    rule: Arc<Rule>,
    /// The grant of all who have a role for it, when nothing in it differs from caller to caller.
    of_all: Option<Arc<Grant>>,
}

/// The rule of a tool or a prompt, for whomever it exists.
#[derive(Debug)]
pub(in crate::policy) struct Rule {
    pub name: Arc<str>,
    /// `tools[NAME]` or `prompts[NAME]`
    pub path: Arc<str>,
    roles: BTreeSet<String>,
    sources: BTreeMap<String, Forced>,
    /// Names of forced arguments.
    pub forced: Vec<Arc<str>>,
    /// Names of arguments that aren't to be given.
    pub forbidden: Vec<Arc<str>>,
    pub bounds: Vec<BoundRule>,
    /// The definitions that the tenant accepts. None: the first that the server shows.
    pub accepted: Vec<Fingerprint>,
    results: Option<CompiledResults>,
}

/// The bounds of an argument.
#[derive(Debug)]
pub(in crate::policy) struct BoundRule {
    pub argument: Arc<str>,
    /// `tools[NAME].bounds[ARGUMENT]`
    pub rule: Arc<str>,
    pub bounds: CompiledBounds,
    pub enforcement: Enforcement,
}

/// A tool or a prompt as one agent may use it.
#[derive(Debug)]
pub(in crate::policy) struct Grant {
    pub rule: Arc<Rule>,
    pub forced: Vec<ForcedArgument>,
    pub results: Option<ResultRule>,
}

/// An argument that is set.
#[derive(Debug)]
pub(in crate::policy) struct ForcedArgument {
    pub name: Arc<str>,
    /// The value, as JSON.
    pub value: String,
}

/// What one agent may use, by name, and what it may not although it has a role for it.
#[derive(Debug)]
pub(in crate::policy) struct Grants(HashMap<Arc<str>, Result<Arc<Grant>, Reason>>);

impl Grants {
    /// How it may be used, or why not; `None` when no role of the agent is for it.
    pub fn get(&self, name: &str) -> Option<Result<&Grant, Reason>> {
        Some(self.0.get(name)?.as_deref().map_err(|reason| *reason))
    }

    /// Names of what may be used.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let granted = self.0.iter().filter(|(_, grant)| grant.is_ok());
        granted.map(|(name, _)| name.as_ref())
    }

    /// Whether there is anything to use.
    pub fn any(&self) -> bool {
        self.names().next().is_some()
    }
}

impl Callables {
    /// Compiles the rules of `part`, which is `tools` or `prompts`.
    pub(super) fn compile(
        part: &str,
        callables: Vec<Callable>,
        written: Written,
    ) -> Result<Self, CompileError> {
        let mut offers = HashMap::with_capacity(callables.len());
        for callable in callables {
            let rule = Arc::new(Rule::compile(part, callable)?);
            let (name, path) = (Arc::clone(&rule.name), Arc::clone(&rule.path));
            let offer = Offer {
                // What takes nothing of its caller is the same for everybody.
                of_all: rule.resolve(NOBODY, written).ok().map(Arc::new),
                rule,
            };
            if offers.insert(name, offer).is_some() {
                return Err(invalid(&*path, "is there twice"));
            }
        }
        Ok(Self { offers, written })
    }

    /// The rule of a name, whoever may use it.
    pub fn get(&self, name: &str) -> Option<&Arc<Rule>> {
        self.offers.get(name).map(|offer| &offer.rule)
    }

    /// All rules, in no order.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.offers.values().map(|offer| &offer.rule)
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        !self.offers.is_empty()
    }

    /// What a caller with these roles may use.
    pub(super) fn of(&self, roles: &BTreeSet<String>, facts: Facts<'_>) -> Grants {
        let granted = self
            .offers
            .values()
            .filter(|offer| !offer.rule.roles.is_disjoint(roles));
        let grants = granted.map(|Offer { rule, of_all }| {
            let grant = match of_all {
                Some(grant) => Ok(Arc::clone(grant)),
                None => rule.resolve(facts, self.written).map(Arc::new),
            };
            (rule.name.clone(), grant)
        });
        Grants(grants.collect())
    }
}

/// The value of a forced argument, or of an owner, for one agent.
pub(in crate::policy) enum Value<'a> {
    Text(&'a str),
    Int(i64),
    Bool(bool),
}

/// A value as tools get it.
pub(super) fn as_json(value: &Value<'_>) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Int(int) => int.to_string(),
        Value::Bool(value) => value.to_string(),
    }
}

/// A value as prompts get it, whose arguments are texts.
pub(super) fn as_text(value: &Value<'_>) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Int(int) => quoted(&int.to_string()),
        Value::Bool(value) => quoted(&value.to_string()),
    }
}

/// The value of a forced argument for a caller of whom this is known.
pub(in crate::policy) fn value_of<'a>(forced: &'a Forced, facts: Facts<'a>) -> Result<Value<'a>, Reason> {
    Ok(match forced {
        Forced::String(text) => Value::Text(text),
        Forced::Int(int) => Value::Int(*int),
        Forced::Bool(value) => Value::Bool(*value),
        Forced::Agent(attribute) => Value::Text(
            facts
                .attributes
                .get(attribute)
                .ok_or(Reason::AgentAttributeMissing)?,
        ),
        Forced::Claim(name) => claimed(name, facts).ok_or(Reason::ClaimMissing)?,
    })
}

fn claimed<'a>(name: &str, facts: Facts<'a>) -> Option<Value<'a>> {
    match facts.person?.claim(name)? {
        serde_json::Value::String(text) if !text.is_empty() => Some(Value::Text(text)),
        serde_json::Value::Bool(value) => Some(Value::Bool(*value)),
        serde_json::Value::Number(number) => number.as_i64().map(Value::Int),
        _ => None,
    }
}

/// Whether a source of a value names nothing.
pub(in crate::policy) fn names_nothing(forced: &Forced) -> bool {
    matches!(forced, Forced::Agent(name) | Forced::Claim(name) if name.is_empty())
}

impl Rule {
    fn compile(part: &str, callable: Callable) -> Result<Self, CompileError> {
        let rule = format!("{part}[{}]", callable.name);
        if callable.name.is_empty() {
            return Err(invalid(rule, "has no name"));
        }
        let ruled = callable.forced.keys().chain(callable.bounds.keys());
        let ruled: Vec<_> = ruled.chain(&callable.forbidden).collect();
        for (index, name) in ruled.iter().enumerate() {
            if name.is_empty() {
                return Err(invalid(rule, "has a rule for an argument without a name"));
            }
            if ruled[..index].iter().any(|other| same_ignoring_case(other, name)) {
                let problem =
                    "has two rules (forced, bounds, forbidden), or one for a name that differs in case only";
                return Err(invalid(format!("{rule}, argument {name},"), problem));
            }
        }
        for (name, forced) in &callable.forced {
            if names_nothing(forced) {
                return Err(invalid(
                    format!("{rule}.forced[{name}]"),
                    "names no attribute or claim",
                ));
            }
        }
        if part != "tools" && callable.results.is_some() {
            return Err(invalid(
                format!("{rule}.results"),
                "is for tools and resources only",
            ));
        }
        let results = CompiledResults::compile(callable.results, &rule)?;
        let accepted = accepted(&callable.definitions, &rule)?;
        let bounds = callable.bounds.iter().map(|(name, bounds)| {
            let rule = format!("{rule}.bounds[{name}]");
            let enforcement = bounds.enforcement;
            match bounds::compile(bounds) {
                Ok(bounds) => Ok(BoundRule {
                    argument: name.as_str().into(),
                    rule: rule.into(),
                    bounds,
                    enforcement,
                }),
                Err(problem) => Err(invalid(rule, problem)),
            }
        });
        Ok(Self {
            forced: callable.forced.keys().map(|name| name.as_str().into()).collect(),
            forbidden: callable
                .forbidden
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            bounds: bounds.collect::<Result<_, _>>()?,
            accepted,
            path: rule.into(),
            name: callable.name.into(),
            roles: callable.roles,
            sources: callable.forced,
            results,
        })
    }

    fn resolve(self: &Arc<Self>, facts: Facts<'_>, written: Written) -> Result<Grant, Reason> {
        let forced = self.forced.iter().map(|name| {
            let source = self.sources.get(&**name).ok_or(Reason::AgentAttributeMissing)?;
            Ok(ForcedArgument {
                name: name.clone(),
                value: written(&value_of(source, facts)?),
            })
        });
        let results = self.results.as_ref();
        Ok(Grant {
            forced: forced.collect::<Result<_, _>>()?,
            results: results.map(|results| results.resolve(facts)).transpose()?,
            rule: Arc::clone(self),
        })
    }

    /// Whether there are rules about its arguments.
    pub fn has_arguments(&self) -> bool {
        !(self.forced.is_empty() && self.bounds.is_empty() && self.forbidden.is_empty())
    }

    /// Whether an argument of this name isn't there for clients.
    pub fn hides(&self, argument: &str) -> bool {
        let mut hidden = self.forced.iter().chain(&self.forbidden);
        hidden.any(|name| **name == *argument)
    }

    /// Whether agents get its results filtered by owner.
    pub fn is_owned(&self) -> bool {
        self.results.as_ref().is_some_and(CompiledResults::is_owned)
    }
}
