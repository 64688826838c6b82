//! Tenants and their policies without a cluster: the operator's own validation and compile of a file, for commands that
//! show or try what a sidecar would do.

pub mod headers;
pub mod outcome;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{Read as _, stdin},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_api::McpTenant;
use bulkhead_core::policy::{
    CompiledAgent, CompiledPolicy, Person, PolicyDocument, Target,
    document::{Agent, Callable},
};
use bulkhead_operator::{
    build::{self, Observed},
    issuers::IssuerRef,
    settings::Settings,
    validate::validate,
};
use clap::{Args as _, FromArgMatches as _};
use serde_json::Value;

use crate::{exit::ExitError, render::documents};

/// A tenant as its sidecars know it: a policy for each server.
#[derive(Debug)]
pub struct Tenant {
    name: String,
    issuers: Vec<IssuerRef>,
    policies: Vec<Policy>,
}

/// The policy of a server.
#[derive(Debug)]
pub struct Policy {
    /// The document as it would be mounted.
    pub json: String,
    /// What it says.
    pub document: PolicyDocument,
    /// What the sidecar makes of it.
    pub compiled: CompiledPolicy,
}

impl Tenant {
    /// Reads a file with one tenant, or stdin (`-`).
    pub fn load(file: &Path) -> Result<Self> {
        let name = || file.display().to_string();
        let text = String::from_utf8(read(file)?).with_context(name)?;
        Self::parse(&text).with_context(name)
    }

    /// Reads a text with one tenant.
    pub fn parse(text: &str) -> Result<Self> {
        let tenants = documents::tenants(text)?;
        match tenants.as_slice() {
            [tenant] => Self::compile(tenant),
            [] => bail!("no McpTenant in it"),
            several => bail!(
                "{} tenants in it, and one is wanted: put each into a file of its own",
                several.len()
            ),
        }
    }

    fn compile(tenant: &McpTenant) -> Result<Self> {
        let settings = settings()?;
        let valid = validate(tenant, &settings, &Observed::default()).map_err(|problems| {
            let mut text = "the operator would not accept the tenant".to_owned();
            for problem in problems {
                let _ = write!(text, "\n  {}: {problem}", problem.reason.as_str());
            }
            anyhow::Error::msg(text)
        })?;
        let policies = valid.servers.iter().map(|server| {
            let json = build::policy(&valid, server, &settings).json;
            Ok(Policy {
                document: serde_json::from_str(&json)?,
                compiled: CompiledPolicy::from_json(json.as_bytes())?,
                json,
            })
        });
        Ok(Self {
            name: valid.name.to_string(),
            issuers: tenant.spec.issuers.iter().map(IssuerRef::of).collect(),
            policies: policies.collect::<Result<_>>()?,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose tokens prove persons to it.
    pub fn issuers(&self) -> &[IssuerRef] {
        &self.issuers
    }

    /// The policy of the server of this name, or of the only one.
    pub fn server(&self, name: Option<&str>) -> Result<&Policy> {
        let servers = self.policies.iter();
        let named = servers.map(|policy| (policy.document.server.as_str(), policy));
        one("server", name, &named.collect::<Vec<_>>()).with_context(|| format!("tenant {}", self.name))
    }
}

impl Policy {
    /// The agent of this name, or the only one.
    pub fn agent(&self, name: Option<&str>) -> Result<&Agent> {
        let agents = self.document.agents.iter();
        let named = agents.map(|agent| (agent.name.as_str(), agent));
        one("agent", name, &named.collect::<Vec<_>>())
            .with_context(|| format!("tenant {}", self.document.tenant.name))
    }

    /// The agent as the sidecar looks it up, by the URI in its certificate; with a person, as it acts for them.
    pub fn caller(&self, agent: &Agent, person: Option<&Person>) -> Result<Arc<CompiledAgent>> {
        let alone = self
            .compiled
            .acting_alone(&agent.spiffe_id)
            .context("the policy has no such agent")?;
        let Some(person) = person else {
            ensure!(
                !alone.requires_person(),
                "agent {} acts for persons only: its own token would be refused (token_person_missing)",
                agent.name
            );
            return Ok(Arc::clone(alone));
        };
        let acting = self.compiled.acting_for(alone, person).with_context(|| {
            let issuer = person.issuer();
            format!("a token of {issuer} would be refused (token_issuer): spec.issuers doesn't name it")
        })?;
        Ok(Arc::new(acting))
    }

    /// The person whose verified token claims this. `iss` may be left out when the tenant has one issuer.
    pub fn person(&self, claims: &Value) -> Result<Person> {
        let issuers = self.compiled.issuers();
        let only = issuers.first().filter(|_| issuers.len() == 1).copied();
        let issuer =
            claims.get("iss").and_then(Value::as_str).or(only).context(
                "the person's claims need iss, the issuer's URL: the tenant hasn't just one issuer",
            )?;
        Person::new(issuer, claims.clone()).context("the person's claims need sub, a text of 1 to 255 bytes")
    }

    /// Roles for which something exists, if it is listed. Which template a URI belongs to only the decision says.
    pub fn roles(&self, target: &Target) -> Option<&BTreeSet<String>> {
        match target {
            Target::Resource(uri) => {
                let resources = &self.document.resources;
                resources
                    .iter()
                    .find(|rule| rule.uri == *uri)
                    .map(|rule| &rule.roles)
            }
            _ => self.callable(target).map(|rule| &rule.roles),
        }
    }

    /// Names of the arguments that are forced.
    pub fn forced(&self, target: &Target) -> Vec<String> {
        let rule = self.callable(target);
        rule.map(|rule| rule.forced.keys().cloned().collect())
            .unwrap_or_default()
    }

    fn callable(&self, target: &Target) -> Option<&Callable> {
        let (rules, name) = match target {
            Target::Tool(name) => (&self.document.tools, name),
            Target::Prompt(name) => (&self.document.prompts, name),
            Target::Resource(_) => return None,
        };
        rules.iter().find(|rule| rule.name == *name)
    }
}

/// The bytes of a file, or of stdin (`-`).
pub fn read(file: &Path) -> Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        stdin().read_to_end(&mut bytes).context("reading stdin")?;
        return Ok(bytes);
    }
    fs::read(file).with_context(|| format!("reading {}", file.display()))
}

/// The thing of this name; without a name the only thing there is.
fn one<'a, T>(what: &str, name: Option<&str>, there: &[(&'a str, &'a T)]) -> Result<&'a T> {
    let names: Vec<_> = there.iter().map(|(name, _)| *name).collect();
    let names = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    match name {
        Some(name) => there
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, thing)| *thing)
            .ok_or_else(|| ExitError::not_found(format!("no {what} {name}; there is: {names}")).into()),
        None => match there {
            [(_, only)] => Ok(*only),
            [] => Err(ExitError::not_found(format!("it has no {what}")).into()),
            _ => bail!("several {what}s, name one: {names}"),
        },
    }
}

/// What the operator is told when it is told nothing. Of all settings only the cluster's domain is in a policy, in names
/// that no decision depends on.
fn settings() -> Result<Settings> {
    let flags = Settings::augment_args(clap::Command::new("settings"));
    Ok(Settings::from_arg_matches(
        &flags.try_get_matches_from(["settings"])?,
    )?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::exit::{Exit, exit_of};

    pub(crate) const ACME: &str = include_str!("../../manifests/samples/acme.yaml");

    /// The same, with an issuer of persons' tokens: `billing` acts for persons only, and invoices are listed for the person.
    pub(crate) fn acme_with_persons() -> String {
        let issuers = "  issuers:
  - name: corp
    url: https://login.example.com
    audiences: [api://acme]
    roles: [{claim: groups, value: finance, roles: [reader]}]
  agents:
";
        let forced = "          tenant_id: {identity: tenantId}\n";
        assert!(ACME.contains(forced));
        ACME.replacen("  agents:\n", issuers, 1)
            .replacen(
                "  - name: billing\n",
                "  - name: billing\n    requiresPerson: true\n",
                1,
            )
            .replacen(forced, &format!("{forced}          clerk: {{claim: email}}\n"), 1)
    }

    #[test]
    fn the_policy_is_the_one_that_the_operator_would_mount() {
        let acme = Tenant::parse(ACME).unwrap();
        let tenant = &documents::tenants(ACME).unwrap()[0];
        let settings = settings().unwrap();
        let unknown = Observed::default();
        let valid = validate(tenant, &settings, &unknown).unwrap();
        let children = build::build(&valid, &unknown, &settings);
        let mounted = children
            .config_maps
            .iter()
            .find_map(|map| map.data.as_ref()?.get("policy.json"))
            .unwrap();
        assert_eq!(&acme.server(None).unwrap().json, mounted);
    }

    #[test]
    fn a_name_may_be_left_out_when_there_is_no_choice() {
        let acme = Tenant::parse(ACME).unwrap();
        let ledger = acme.server(None).unwrap();
        assert_eq!(acme.server(Some("ledger")).unwrap().json, ledger.json);
        assert_eq!(ledger.agent(Some("ops")).unwrap().name, "ops");
        let error = ledger.agent(None).unwrap_err();
        assert!(
            format!("{error:#}").contains("several agents, name one: billing, ops"),
            "{error:#}"
        );
    }

    #[test]
    fn an_unknown_name_is_not_found_and_the_known_ones_are_told() {
        let acme = Tenant::parse(ACME).unwrap();
        let errors = [
            (
                acme.server(Some("crm")).unwrap_err(),
                "no server crm; there is: ledger",
            ),
            (
                acme.server(None).unwrap().agent(Some("eve")).unwrap_err(),
                "no agent eve; there is: billing, ops",
            ),
        ];
        for (error, says) in errors {
            assert!(format!("{error:#}").ends_with(says), "{error:#}");
            assert_eq!(exit_of(&error), Exit::NotFound);
        }
    }

    #[test]
    fn a_file_that_can_not_be_used_says_why() {
        let table = [
            ("a: [".to_owned(), "not YAML"),
            ("---\n".to_owned(), "no McpTenant"),
            (format!("{ACME}\n---\n{ACME}"), "2 tenants"),
            (
                ACME.replace("{agent: locationId}", "{agent: place}"),
                "UnknownReference",
            ),
            (
                ACME.replace("{maxLength: 200}", "{pattern: '('}"),
                "InvalidToolRule",
            ),
            (ACME.replace("roles: [admin]", "role: [admin]"), "unknown field"),
        ];
        for (text, says) in table {
            let error = format!("{:#}", Tenant::parse(&text).unwrap_err());
            assert!(error.contains(says), "{says}: {error}");
        }
        let error = format!("{:#}", Tenant::load(Path::new("/nowhere/acme.yaml")).unwrap_err());
        assert!(error.contains("reading /nowhere/acme.yaml"), "{error}");
    }
}
