//! Schema pieces that several fields share: names, maps with bounds, lists that merge or don't.
//!
//! Everything has an upper bound: the API server adds up what each CEL rule could cost on the
//! greatest object that the schema allows, and refuses a CRD that is over budget.

use schemars::{Schema, SchemaGenerator, json_schema, transform::transform_subschemas};

/// A DNS label (RFC 1123), for names of Kubernetes objects.
pub(super) const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// A DNS label that starts with a letter (RFC 1035), for names of Services.
pub(super) const DNS_LABEL_RFC1035: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";

/// DNS labels joined by dots (RFC 1123), for names of Secrets and classes.
pub(super) const DNS_SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// Names of hosts: DNS labels joined by dots, at least two, and the last no number (an address is no name).
pub(super) const HOSTNAME: &str = "^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?[.])+[a-z]([-a-z0-9]{0,61}[a-z0-9])?$";

/// Names of roles.
pub(super) const ROLE: &str = "^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?$";

/// Names of attributes.
pub(super) const ATTRIBUTE: &str = "^[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?$";

/// Paths in a URL, without query and fragment.
pub(super) const URL_PATH: &str = "^/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*$";

/// Absolute paths in a container, in the one way of writing each.
pub(super) const ABSOLUTE_PATH: &str = "^(/[A-Za-z0-9._@-]+)+$";

/// Quantities, as far as a schema can say it; what they must be is in the rules.
const QUANTITY_MAX_LENGTH: u32 = 24;

/// Texts by attribute name. Atomic: forced arguments are made of them, so no second field
/// manager adds one unseen.
pub(super) fn attributes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 256},
        "x-kubernetes-map-type": "atomic",
        "x-kubernetes-validations": [{
            "rule": format!("self.all(name, name.size() <= 63 && name.matches('{ATTRIBUTE}'))"),
            "message": "names of attributes are 1 to 63 letters, digits, '.', '_' and '-', \
                        starting with a letter and ending with a letter or digit",
        }],
    })
}

/// Labels that select pods. At least one: an empty selector would mean every pod of a namespace.
pub(super) fn pod_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 8,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": "^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$",
        },
        "x-kubernetes-map-type": "atomic",
        "x-kubernetes-validations": [{
            "rule": "self.all(key, key.size() <= 317 && \
                     key.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$'))",
            "message": "keys of podLabels must be label keys, for example 'app' or 'app.kubernetes.io/name'",
        }],
    })
}

/// Amounts by compute resource.
pub(super) fn resource_amounts(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 3,
        "additionalProperties": quantity(generator),
        "x-kubernetes-map-type": "atomic",
        "x-kubernetes-validations": [{
            "rule": "self.all(name, name in ['cpu', 'memory', 'ephemeral-storage'])",
            "message": "only cpu, memory and ephemeral-storage can be requested or limited",
        }],
    })
}

/// An amount greater than nothing.
pub(super) fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": QUANTITY_MAX_LENGTH,
        "x-kubernetes-validations": [{
            "rule": "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
            "message": "must be a quantity greater than 0, for example '500m', '2' or '512Mi'",
        }],
    })
}

/// Names of roles. Atomic: a role grants.
pub(super) fn roles(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": ROLE},
        "x-kubernetes-list-type": "atomic",
    })
}

/// Fingerprints of definitions. Atomic: what is accepted, a model reads. As many as there are versions of the protocol, twice:
/// a server and its next release.
pub(super) fn definitions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "items": {"type": "string", "maxLength": 71, "pattern": "^sha256:[0-9a-f]{64}$"},
        "x-kubernetes-list-type": "atomic",
    })
}

/// Kubernetes knows no unsigned formats and warns of each; `minimum` says it already.
pub(super) fn known_formats(schema: &mut Schema) {
    let known = match schema.get("format").and_then(|format| format.as_str()) {
        Some("uint16") => Some("int32"),
        Some("uint32") => Some("int64"),
        _ => None,
    };
    if let Some(known) = known {
        schema.insert("format".to_owned(), known.into());
    }
    transform_subschemas(&mut known_formats, schema);
}
