//! Persons that agents act for: what a verified token says of them, and what they may do.
//!
//! An agent that acts for a person may do what both may. Whatever a rule takes from a claim is the person's, never the
//! message's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    compile::{CompileError, invalid},
    document::{Issuer, RolesOf},
};

/// Longest `sub`, in bytes (OpenID Connect Core 1.0 §2 allows 255).
const MAX_SUBJECT: usize = 255;

/// Claims that are lists of words in one text (RFC 8693 §4.2, and `scp` as some issuers have it).
const SCOPES: [&str; 2] = ["scope", "scp"];

/// A person, as a verified token tells of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    issuer: String,
    subject: String,
    claims: Value,
}

impl Person {
    /// Of the claims of a token that `issuer` signed. `None`: they name nobody.
    pub fn new(issuer: &str, claims: Value) -> Option<Self> {
        let subject = claims.get("sub")?.as_str()?.to_owned();
        let is_name =
            !subject.is_empty() && subject.len() <= MAX_SUBJECT && !subject.chars().any(char::is_control);
        is_name.then(|| Self {
            issuer: issuer.to_owned(),
            subject,
            claims,
        })
    }

    /// Who vouches for them: `iss`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Who they are to the issuer: `sub`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// A claim, by name or JSON pointer.
    pub(super) fn claim(&self, name: &str) -> Option<&Value> {
        if name.starts_with('/') {
            self.claims.pointer(name)
        } else {
            self.claims.get(name)
        }
    }

    /// The roles that the issuer's rules give them.
    pub(super) fn roles<'i>(&self, issuer: &'i Issuer) -> BTreeSet<&'i str> {
        let rules = issuer.roles.iter().filter(|rule| self.is_meant(rule));
        rules
            .flat_map(|rule| rule.roles.iter().map(String::as_str))
            .collect()
    }

    fn is_meant(&self, rule: &RolesOf) -> bool {
        let Some(wanted) = &rule.claim else { return true };
        match self.claim(&wanted.name) {
            Some(Value::String(text)) if SCOPES.contains(&wanted.name.as_str()) => {
                text.split(' ').any(|word| word == wanted.value)
            }
            Some(Value::String(text)) => *text == wanted.value,
            Some(Value::Array(values)) => values.iter().any(|value| value.as_str() == Some(&wanted.value)),
            _ => false,
        }
    }
}

/// Of a caller of whom nothing is known.
pub(super) const NOBODY: Facts<'_> = Facts {
    attributes: &BTreeMap::new(),
    person: None,
};

/// What values may be taken from, for one caller.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    /// Of the agent.
    pub(super) attributes: &'a BTreeMap<String, String>,
    /// Whom the agent acts for.
    pub(super) person: Option<&'a Person>,
}

/// Checks the issuers of a document.
pub(super) fn check(issuers: &[Issuer]) -> Result<(), CompileError> {
    for (index, issuer) in issuers.iter().enumerate() {
        let part = format!("issuers[{}]", issuer.name);
        let before = &issuers[..index];
        if issuer.name.is_empty() || before.iter().any(|other| other.name == issuer.name) {
            return Err(invalid(part, "has no name, or one that another issuer has"));
        }
        if issuer.url.is_empty()
            || issuer.url.chars().any(char::is_control)
            || before.iter().any(|other| other.url == issuer.url)
        {
            return Err(invalid(part, "has no url, or one that another issuer has"));
        }
        if issuer.audiences.is_empty() || issuer.audiences.contains("") {
            return Err(invalid(
                part,
                "has no audience: any token of the issuer would be taken",
            ));
        }
        if issuer.max_lifetime == 0 {
            return Err(invalid(part, "takes no token, as none may be good for any time"));
        }
        let claims = issuer.roles.iter().filter_map(|rule| rule.claim.as_ref());
        if claims
            .into_iter()
            .any(|claim| claim.name.is_empty() || claim.value.is_empty())
        {
            return Err(invalid(part, "has roles of a claim without a name or a value"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn person(claims: Value) -> Option<Person> {
        Person::new("https://login.example.com", claims)
    }

    #[test]
    fn roles_are_those_of_the_claims_that_a_person_has() {
        let rule = |name: &str, value: &str, role: &str| json!({"claim": {"name": name, "value": value}, "roles": [role]});
        let issuer: Issuer = serde_json::from_value(json!({
            "name": "corp", "url": "https://login.example.com", "audiences": ["a"], "maxLifetime": 60,
            "roles": [
                rule("groups", "finance", "reader"),
                rule("/realm_access/roles", "boss", "admin"),
                rule("scope", "crm.write", "writer"),
                rule("department", "sales", "seller"),
                {"roles": ["guest"]},
            ],
        }))
        .unwrap();
        for (claims, roles) in [
            (json!({}), &["guest"][..]),
            (json!({"groups": ["it", "finance"]}), &["guest", "reader"]),
            (json!({"groups": "finance"}), &["guest", "reader"]),
            (json!({"groups": "it finance"}), &["guest"]),
            (json!({"groups": {"finance": true}}), &["guest"]),
            (json!({"groups": ["Finance", "finance "]}), &["guest"]),
            (json!({"realm_access": {"roles": ["boss"]}}), &["admin", "guest"]),
            (json!({"/realm_access/roles": ["boss"]}), &["guest"]),
            (json!({"scope": "openid crm.write"}), &["guest", "writer"]),
            (json!({"scope": "crm.write.all"}), &["guest"]),
            (json!({"department": "sales"}), &["guest", "seller"]),
            (json!({"department": "not sales"}), &["guest"]),
        ] {
            let mut claims = claims;
            claims["sub"] = json!("ada");
            let found = person(claims.clone()).unwrap().roles(&issuer);
            assert_eq!(found, roles.iter().copied().collect(), "{claims}");
        }
    }

    #[test]
    fn a_person_has_a_name() {
        let long = "x".repeat(MAX_SUBJECT + 1);
        for subject in [json!(""), json!(7), json!("a\nb"), json!(null), json!(long)] {
            assert_eq!(person(json!({"sub": subject})), None, "{subject}");
        }
        assert_eq!(person(json!({})), None);
        assert_eq!(person(json!({"sub": "ada"})).unwrap().subject(), "ada");
    }
}
