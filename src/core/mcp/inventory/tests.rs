use super::*;

const VERSION: ProtocolVersion = ProtocolVersion::V20251125;

fn entry(listing: Listing, name: &str, definition: &str) -> Learned {
    Learned {
        listing,
        version: VERSION,
        name: name.to_owned(),
        fingerprint: Fingerprint::of(definition),
        facts: Ok(None),
    }
}

fn tool(name: &str, schema: &str) -> Learned {
    let facts = ToolFacts {
        mirrors: Vec::new(),
        schema: InputSchema::compile(schema).unwrap(),
    };
    Learned {
        facts: Ok(Some(Arc::new(facts))),
        ..entry(Listing::Tools, name, schema)
    }
}

fn after(entries: &[Learned]) -> Inventory {
    entries.iter().fold(Inventory::default(), |known, entry| {
        known.learning(std::slice::from_ref(entry)).unwrap_or(known)
    })
}

#[test]
fn an_inventory_changes_only_when_it_learns_something() {
    let first = [tool("a", "{}")];
    let known = Inventory::default().learning(&first).unwrap();
    assert!(known.learning(&first).is_none());
    assert!(known.tool("a", &[]).unwrap().is_ok());
    assert!(known.tool("b", &[]).is_none());
    let gone = Learned {
        facts: Err(Reason::InvalidMirror),
        ..tool("a", "{}")
    };
    let known = known.learning(&[gone]).unwrap();
    assert_eq!(known.tool("a", &[]), Some(Err(Reason::InvalidMirror)));
}

#[test]
fn a_server_is_held_to_the_first_definition_until_the_tenant_accepts_others() {
    let (one, other) = (tool("a", "{}"), tool("a", r#"{"type":"object"}"#));
    let (first, second) = (one.fingerprint, other.fingerprint);
    let changed = Err(Reason::DefinitionChanged);
    let foreign = Err(Reason::DefinitionNotAccepted);
    for (shown, accepted, expected) in [
        (vec![&one], &[][..], Ok(())),
        (vec![&one, &other], &[], changed),
        (vec![&one, &other, &one], &[], Ok(())),
        (vec![&one], &[first], Ok(())),
        (vec![&one], &[second], foreign),
        (vec![&one, &other], &[first], foreign),
        (vec![&one, &other], &[second], Ok(())),
        (vec![&one, &other], &[second, first], Ok(())),
    ] {
        let shown: Vec<_> = shown.into_iter().cloned().collect();
        let known = after(&shown);
        let usable = known.tool("a", accepted).unwrap();
        assert_eq!(usable.map(drop), expected, "{shown:?} {accepted:?}");
        assert_eq!(known.accepts(shown.last().unwrap(), accepted), expected);
        // What was never offered is nothing that the server could be held to.
        let broken = Learned {
            facts: Err(Reason::HiddenCharacters),
            ..tool("a", "false")
        };
        let mut late = shown.clone();
        late.insert(0, broken);
        assert_eq!(after(&late).tool("a", accepted).unwrap().map(drop), expected);
        let prompts: Vec<_> = shown
            .iter()
            .map(|entry| Learned {
                listing: Listing::Prompts,
                facts: Ok(None),
                ..entry.clone()
            })
            .collect();
        assert_eq!(after(&prompts).prompt("a", accepted), expected);
    }
}

#[test]
fn a_pin_outweighs_what_this_process_saw_first_and_what_has_none_is_told() {
    let (one, other) = (tool("a", "{}"), tool("a", r#"{"type":"object"}"#));
    let changed = Err(Reason::DefinitionChanged);
    let pins = |definition: &Learned| {
        let mut pins = Pins::of_image("crm");
        pins.pin(Listing::Tools, "a", VERSION, definition.fingerprint);
        Arc::new(pins)
    };
    for (pinned, expected) in [(&one, Ok(())), (&other, changed)] {
        let known = after(std::slice::from_ref(&one));
        let unpinned: Vec<_> = known.unpinned(Listing::Tools, "a").collect();
        assert_eq!(unpinned, [(VERSION, one.fingerprint)]);
        let known = known.pinned(&pins(pinned)).unwrap();
        assert!(known.pinned(&pins(pinned)).is_none());
        assert_eq!(known.tool("a", &[]).unwrap().map(drop), expected);
        assert_eq!(known.accepts(&one, &[]), expected);
        assert_eq!(known.unpinned(Listing::Tools, "a").count(), 0);
        // What the tenant accepts itself outweighs both.
        assert_eq!(known.tool("a", &[one.fingerprint]).unwrap().map(drop), Ok(()));
        // Of another tool, and of the prompt of the same name, nothing is pinned.
        assert_eq!(known.accepts(&tool("b", "{}"), &[]), Ok(()));
        assert_eq!(known.accepts(&entry(Listing::Prompts, "a", "{}"), &[]), Ok(()));
    }
    // Before the server showed anything to this process.
    let fresh = Inventory::default().pinned(&pins(&one)).unwrap();
    assert_eq!(fresh.accepts(&other, &[]), changed);
    let known = fresh.learning(std::slice::from_ref(&other)).unwrap();
    assert_eq!(known.tool("a", &[]).unwrap().map(drop), changed);
    assert_eq!(
        known.unpinned(Listing::Tools, "a").count(),
        0,
        "nothing else takes its place"
    );
}

#[test]
fn each_version_has_a_definition_of_its_own_and_one_that_changed_takes_the_tool_out_of_all() {
    let old = tool("a", "{}");
    let new = Learned {
        version: ProtocolVersion::V20260728,
        ..tool("a", r#"{"type":"object"}"#)
    };
    let known = after(&[old.clone(), new.clone()]);
    assert_eq!(
        known.tool("a", &[]).unwrap().unwrap().schema.text(),
        r#"{"type":"object"}"#
    );
    let changed = Learned {
        version: old.version,
        ..new.clone()
    };
    let known = after(&[old, new, changed]);
    assert_eq!(known.tool("a", &[]), Some(Err(Reason::DefinitionChanged)));
}

#[test]
fn resources_that_cannot_be_offered_are_kept_up_to_a_limit_and_beyond_it_none_can_be_read() {
    let hidden = |name: &str| Learned {
        facts: Err(Reason::HiddenCharacters),
        ..entry(Listing::Resources, name, "{}")
    };
    let known = after(&[hidden("a:1"), entry(Listing::Resources, "a:2", "{}")]);
    assert_eq!(known.resource("a:1", "a:1"), Err(Reason::HiddenCharacters));
    assert_eq!(known.resource("a:2", "a:2"), Ok(()));
    let healed = after(&[hidden("a:1"), entry(Listing::Resources, "a:1", "{}")]);
    assert_eq!(healed.resource("a:1", "a:1"), Ok(()));
    let template = Learned {
        listing: Listing::Templates,
        ..hidden("a:{n}")
    };
    assert_eq!(
        after(&[template]).resource("a:2", "a:{n}"),
        Err(Reason::HiddenCharacters)
    );
    let many: Vec<_> = (0..=MAX_WITHHELD).map(|n| hidden(&format!("a:{n}"))).collect();
    let known = after(&many[1..]);
    assert_eq!(known.resource("b:1", "b:1"), Ok(()));
    let known = known.learning(&many[..1]).unwrap();
    assert_eq!(known.resource("b:1", "b:1"), Err(Reason::HiddenCharacters));
}
