//! Bad specifications: refused by the API server or by a condition, with a clear message, and nothing is made.

use bulkhead_e2e::{Kubectl, condition, delete, eventually, find, gone, object, samples, tenant};
use serde_json::Value;

/// One bad specification.
struct Case {
    /// What is wrong with it.
    name: String,
    /// A JSON merge patch on a good tenant.
    patch: Value,
    /// What the message must contain.
    says: String,
}

fn cases() -> Vec<Case> {
    let text = include_str!("bad_specs.yaml");
    let table: Vec<Value> = serde_saphyr::from_str(text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    table
        .iter()
        .map(|row| Case {
            name: text(&row["name"]),
            patch: row["patch"].clone(),
            says: text(&row["says"]),
        })
        .collect()
}

/// RFC 7396. Lists are replaced; `{"#0": …}` patches an element of a list in place.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() && !target.is_array() {
        *target = serde_json::json!({});
    }
    for (key, value) in fields {
        if let (Some(index), Value::Array(items)) = (key.strip_prefix('#'), &mut *target) {
            merge(&mut items[index.parse::<usize>().unwrap()], value);
        } else if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

/// Applies a bad specification and returns what it was refused with.
fn refusal(kubectl: &Kubectl, case: &Case, spec: &Value) -> Result<String, String> {
    let name = spec["metadata"]["name"].as_str().unwrap();
    let namespace = || find("namespace", "", name).unwrap().is_some();
    let existed = namespace();
    let applied = kubectl
        .outcome(&["apply", "-f", "-"], Some(&spec.to_string()))
        .unwrap();
    if !applied.ok {
        return Ok(applied.stderr);
    }
    let said = eventually(&format!("{}: decided", case.name), || {
        let tenant = object("mcptenant", "", name)?;
        condition(&tenant, "Accepted")
            .cloned()
            .ok_or_else(|| anyhow::anyhow!("{}", tenant["status"]))
    });
    let made = !existed && namespace();
    delete("mcptenant", "", name).unwrap();
    eventually(&format!("{}: gone", case.name), || gone("mcptenant", "", name));
    match said["status"].as_str() {
        Some("False") if made => Err("a namespace was made all the same".into()),
        Some("False") => Ok(said.to_string()),
        _ => Err(format!("it was not refused: {said}")),
    }
}

#[test]
fn every_bad_specification_is_refused_with_a_message_and_makes_nothing() {
    samples();
    let kubectl = Kubectl::admin();
    let cases = cases();
    assert!(cases.len() >= 25, "{}", cases.len());
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let mut spec = tenant(&format!("bad-{number}"));
        merge(&mut spec, &case.patch);
        match refusal(&kubectl, case, &spec) {
            Ok(said) if !said.contains(&case.says) => {
                wrong.push(format!(
                    "{}: the message must say {:?}: {said}",
                    case.name, case.says
                ));
            }
            Ok(said) => {
                // A name that the specification itself gave may be repeated.
                let leaked = ["acme", "globex"]
                    .iter()
                    .find(|other| said.contains(**other) && !spec.to_string().contains(**other));
                wrong.extend(leaked.map(|other| format!("{}: names {other}: {said}", case.name)));
            }
            Err(why) => wrong.push(format!("{}: {why}", case.name)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_good_tenant_that_the_cases_start_from_is_accepted() {
    let good = tenant("good");
    let tenant = bulkhead_e2e::Tenant::applied(&good);
    eventually("accepted", || {
        let object = object("mcptenant", "", &tenant.name)?;
        match condition(&object, "Accepted") {
            Some(accepted) if accepted["status"] == "True" => Ok(()),
            _ => Err(anyhow::anyhow!("{}", object["status"])),
        }
    });
}
