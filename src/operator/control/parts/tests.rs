use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const AGENT: &str = "billing";

fn whole(limit: u32, replicas: u32) -> Whole {
    Whole {
        agents: [(AGENT.to_owned(), [limit, 0])].into(),
        replicas,
    }
}

fn usage(held: u32, asked: u32) -> BTreeMap<String, Usage> {
    let amounts = |requests_per_minute| {
        Some(control::Amounts {
            requests_per_minute,
            concurrent: 0,
        })
    };
    let usage = Usage {
        agent: AGENT.to_owned(),
        held: amounts(held),
        asked: amounts(asked),
    };
    [(AGENT.to_owned(), usage)].into()
}

/// Number and amount of what each is told.
fn told(parts: &BTreeMap<String, control::Parts>) -> Vec<(&str, u64, u32)> {
    let amount = |parts: &control::Parts| parts.parts[0].amounts.unwrap().requests_per_minute;
    parts
        .iter()
        .map(|(pod, parts)| (pod.as_str(), parts.number, amount(parts)))
        .collect()
}

#[test]
fn the_whole_is_divided_by_what_is_asked_for() {
    for (limit, asked, expected) in [
        (600, &[0, 0][..], &[300, 300][..]),
        (601, &[0, 0], &[301, 300]),
        // One client's connections all at one replica.
        (600, &[1024, 0], &[563, 37]),
        (600, &[400, 0], &[482, 118]),
        (600, &[1024, 1024], &[300, 300]),
        (600, &[100, 1024, 1024], &[100, 250, 250]),
        (600, &[600], &[600]),
        (8, &[16, 0], &[7, 1]),
        // Nobody gets nothing.
        (2, &[9, 0, 0], &[1, 1, 1]),
        (0, &[9, 0], &[1, 1]),
    ] {
        assert_eq!(fair(limit, asked), expected, "{limit} by {asked:?}");
    }
    assert!(fair(600, &[]).is_empty());
}

#[test]
fn what_no_sidecar_would_say_is_refused() {
    let of = |agent: &str| Usage {
        agent: agent.to_owned(),
        ..Usage::default()
    };
    let all = [of(ALL_AGENTS), of("billing"), of("support")];
    assert_eq!(read(all.into()).unwrap().len(), 3);
    assert!(read(vec![of("a\nb")]).is_none());
    assert!(read(vec![of(&"a".repeat(MAX_NAME + 1))]).is_none());
    assert!(read(vec![of(AGENT); MAX_USAGE + 1]).is_none());
}

#[test]
fn the_whole_is_what_the_tenant_says_of_all_its_agents_and_of_each() {
    let tenant: McpTenantSpec = serde_json::from_value(serde_json::json!({
        "identity": {"tenantId": "7"},
        "quota": {"cpu": "1", "memory": "1Gi", "pods": 3},
        "limits": {"requestsPerMinute": 900},
        "agents": [
            {"name": "billing", "limits": {"requestsPerMinute": 600, "concurrent": 16}},
            {"name": "support", "limits": {}},
            {"name": "reports"},
        ],
        "servers": [{"name": "ledger", "image": "ledger:1", "replicas": 3, "http": {"port": 3000}}],
    }))
    .unwrap();
    let whole = Whole::of(&tenant, "ledger");
    assert_eq!(whole.replicas, 3);
    assert_eq!(
        whole.agents,
        [
            (ALL_AGENTS.to_owned(), [900, 0]),
            ("billing".to_owned(), [600, 16])
        ]
        .into()
    );
}

#[test]
fn what_one_gets_another_has_given_up_before() {
    let mut parts = Parts::default();
    let whole = whole(600, 2);
    parts.attach("a", 1);
    assert!(parts.next(&whole).is_empty(), "nothing is known yet");
    assert!(parts.report("a", 1, 0, &usage(300, 1024)));
    assert!(parts.next(&whole).is_empty(), "the other may give its equal part");
    parts.attach("b", 2);
    assert!(parts.next(&whole).is_empty());
    assert!(parts.report("b", 2, 0, &usage(300, 0)));
    assert_eq!(told(&parts.next(&whole)), [("b", 1, 37)]);
    assert!(parts.next(&whole).is_empty(), "nothing is said twice");
    // On its way when it was told.
    assert!(parts.report("b", 2, 0, &usage(300, 0)));
    assert!(parts.next(&whole).is_empty());
    assert!(parts.report("b", 2, 1, &usage(37, 0)));
    assert_eq!(told(&parts.next(&whole)), [("a", 1, 563)]);

    // Until it has confirmed, it may have what it was told first: neither its own nor the other's word changes that.
    assert!(parts.report("b", 2, 1, &usage(37, 1024)));
    assert_eq!(told(&parts.next(&whole)), [("a", 2, 300)]);
    assert!(parts.report("a", 1, 0, &usage(300, 1024)));
    assert!(parts.next(&whole).is_empty());
    assert!(parts.report("a", 1, 1, &usage(563, 1024)));
    assert!(parts.next(&whole).is_empty());
    assert!(parts.report("a", 1, 2, &usage(300, 1024)));
    assert_eq!(told(&parts.next(&whole)), [("b", 2, 300)]);
    assert!(parts.report("b", 2, 2, &usage(300, 0)));
    assert_eq!(told(&parts.next(&whole)), [("b", 3, 37)]);
    assert!(parts.report("b", 2, 3, &usage(37, 0)));
    assert_eq!(told(&parts.next(&whole)), [("a", 3, 563)]);

    // A call that isn't the last says nothing.
    assert!(!parts.report("b", 1, 1, &usage(1, 0)));
    parts.lose("b", 1);
    parts.forget("b", 1);
    assert!(parts.next(&whole).is_empty());
    // Without a word from it, it may give as much as its equal part.
    parts.lose("b", 2);
    assert_eq!(told(&parts.next(&whole)), [("a", 4, 300)]);
    assert!(parts.report("a", 1, 4, &usage(300, 1024)));
    // It comes back with no more than it had.
    parts.attach("b", 3);
    assert!(parts.next(&whole).is_empty());
    assert!(parts.report("b", 3, 0, &usage(37, 0)));
    assert_eq!(told(&parts.next(&whole)), [("a", 5, 563)]);
    parts.forget("a", 1);
    parts.forget("b", 3);
    assert!(parts.is_empty());
}

#[test]
fn more_replicas_than_there_are_to_be_give_no_more_than_the_whole() {
    let mut parts = Parts::default();
    let whole = whole(600, 2);
    for (pod, call) in [("a", 1), ("b", 2), ("c", 3)] {
        parts.attach(pod, call);
        assert!(parts.report(pod, call, 0, &usage(300, 0)));
    }
    assert_eq!(
        told(&parts.next(&whole)),
        [("a", 1, 200), ("b", 1, 200), ("c", 1, 200)]
    );
    // Of another policy, under which it has no such limit: it can't be told one, and counts as an equal part.
    assert!(parts.report("c", 3, 1, &usage(0, 0)));
    for (pod, call) in [("a", 1), ("b", 2)] {
        assert!(parts.report(pod, call, 1, &usage(200, 0)));
    }
    assert_eq!(told(&parts.next(&whole)), [("a", 2, 150), ("b", 2, 150)]);
}

/// A sidecar, and what is on its way to it and from it.
#[derive(Default)]
struct Sidecar {
    call: u64,
    part: u32,
    number: u64,
    asked: u32,
    to: VecDeque<(u64, u32)>,
    from: VecDeque<(u64, u32, u32)>,
    attached: bool,
    /// The operator has noticed that its call has ended, and hears no more of it.
    unheard: bool,
}

struct World {
    parts: Parts,
    whole: Whole,
    equal: u32,
    calls: u64,
    sidecars: Vec<Sidecar>,
}

impl World {
    fn new(replicas: u32, equal: u32) -> Self {
        let fresh = |_| Sidecar {
            part: equal,
            ..Sidecar::default()
        };
        Self {
            parts: Parts::default(),
            whole: whole(equal * replicas, replicas),
            equal,
            calls: 0,
            sidecars: (0..replicas).map(fresh).collect(),
        }
    }

    fn tell(&mut self) {
        for (pod, parts) in self.parts.next(&self.whole) {
            let sidecar = &mut self.sidecars[pod.parse::<usize>().unwrap()];
            let part = parts.parts[0].amounts.unwrap().requests_per_minute;
            sidecar.to.push_back((parts.number, part));
        }
    }

    fn report(&mut self, place: usize) {
        let sidecar = &mut self.sidecars[place];
        if !sidecar.unheard {
            let said = (sidecar.number, sidecar.part, sidecar.asked);
            sidecar.from.push_back(said);
        }
    }

    fn step(&mut self, place: usize, what: u8, asked: u32) {
        let pod = place.to_string();
        let sidecar = &mut self.sidecars[place];
        match what {
            // It calls, anew if it has a call.
            0 => {
                self.calls += 1;
                let part = sidecar.part.min(self.equal);
                *sidecar = Sidecar {
                    call: self.calls,
                    part: if sidecar.call == 0 { self.equal } else { part },
                    attached: true,
                    ..Sidecar::default()
                };
                self.parts.attach(&pod, self.calls);
                self.report(place);
            }
            1 if sidecar.attached => {
                sidecar.asked = asked;
                self.report(place);
            }
            // What is on its way arrives.
            2 => {
                if let Some((number, part)) = sidecar.to.pop_front() {
                    (sidecar.number, sidecar.part) = (number, part);
                    self.report(place);
                }
            }
            3 => {
                if let Some((number, held, asked)) = sidecar.from.pop_front() {
                    self.parts.report(&pod, sidecar.call, number, &usage(held, asked));
                }
            }
            // The operator notices an end that the sidecar has not noticed yet.
            4 if sidecar.attached => {
                self.parts.lose(&pod, sidecar.call);
                sidecar.unheard = true;
                sidecar.from.clear();
            }
            // Both have, and some time has gone by, in which everything else arrived: it goes back to its policy.
            5 if sidecar.attached => {
                self.parts.lose(&pod, sidecar.call);
                sidecar.unheard = true;
                for sidecar in self.sidecars.iter_mut().filter(|sidecar| sidecar.unheard) {
                    sidecar.attached = false;
                    sidecar.part = sidecar.part.min(self.equal);
                    (sidecar.to, sidecar.from) = Default::default();
                }
                self.settle();
                self.sidecars[place].part = self.equal;
                self.parts.forget(&pod, self.sidecars[place].call);
            }
            _ => {}
        }
        self.tell();
    }

    /// Until nothing is on its way.
    fn settle(&mut self) {
        self.tell();
        while self
            .sidecars
            .iter()
            .any(|sidecar| !(sidecar.to.is_empty() && sidecar.from.is_empty()))
        {
            for place in 0..self.sidecars.len() {
                self.step(place, 2, 0);
                self.step(place, 3, 0);
            }
        }
    }

    fn given(&self) -> u32 {
        self.sidecars.iter().map(|sidecar| sidecar.part).sum()
    }
}

proptest! {
    /// In whatever order things arrive, get lost and come back.
    #[test]
    fn the_parts_never_make_more_than_the_whole_and_come_to_it(
        replicas in 1u32..5,
        equal in 1u32..40,
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0u8..6, 0u32..300), 0..200),
    ) {
        let mut world = World::new(replicas, equal);
        for (place, what, asked) in steps {
            world.step(place.index(replicas as usize), what, asked);
            prop_assert!(world.given() <= replicas * equal, "{} of {}", world.given(), replicas * equal);
        }
        // Everybody calls, and what is asked for is had as far as it goes.
        for place in 0..replicas as usize {
            world.step(place, 0, 0);
        }
        world.settle();
        prop_assert_eq!(world.given(), replicas * equal);
        world.step(0, 1, 10_000);
        world.settle();
        let most = fair(replicas * equal, &[&[10_000][..], &vec![0; replicas as usize - 1]].concat())[0];
        prop_assert_eq!(world.sidecars[0].part, most);
    }
}
