//! How the replicas of one server divide what its agents may ask of it, each and all together: each replica gets a part by what
//! it is asked for, and at no time do the parts make more than the whole. Pure.
//!
//! A replica that nobody has told anything gives an equal part, which is what its policy says. What is taken from one goes
//! to another only after the first has confirmed that it gives less: between the two, a little less than the whole is given.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    num::NonZeroU32,
};

use bulkhead_api::tenant::{McpTenantSpec, RequestLimits};
use bulkhead_control::{self as control, ALL_AGENTS, MAX_USAGE, Usage};

use super::in_force::{MAX_NAME, is_text};

/// Every replica gets this fraction of an equal part, asked or not: an agent that comes to it finds something.
const IDLE: u32 = 8;

/// Requests in a minute, and requests under way. 0: no limit, or nothing.
pub type Amounts = [u32; 2];

/// What the replicas of one server give.
#[derive(Debug, Default)]
pub struct Parts {
    /// By the pod's UID.
    replicas: BTreeMap<String, Replica>,
}

#[derive(Debug, Default)]
struct Replica {
    /// The number of its call.
    call: u64,
    /// It has said nothing on its call yet, or that has ended. What it gave, it may still give.
    is_silent: bool,
    /// The number of the parts that it was told last.
    told: u64,
    agents: BTreeMap<String, Agent>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Agent {
    /// What the replica was told, or gives by itself.
    given: Amounts,
    /// The most that it may be giving: what it was told before stays possible until it confirms what it was told last.
    bound: Amounts,
    asked: Amounts,
}

/// What may be asked of all replicas of a server together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// By the agent's name, or [`ALL_AGENTS`]; who has no limit isn't among them.
    pub agents: BTreeMap<String, Amounts>,
    /// How many replicas there are to be.
    pub replicas: u32,
}

impl Whole {
    /// As a tenant says it of one of its servers.
    pub fn of(tenant: &McpTenantSpec, server: &str) -> Self {
        let agents = tenant
            .agents
            .iter()
            .map(|agent| (agent.name.as_str(), agent.limits));
        let limited = [(ALL_AGENTS, tenant.limits)].into_iter().chain(agents);
        let limited = limited.filter_map(|(name, limits)| {
            let RequestLimits {
                requests_per_minute,
                concurrent,
            } = limits?;
            let amounts = [requests_per_minute, concurrent].map(|limit| limit.map_or(0, NonZeroU32::get));
            (amounts != Amounts::default()).then(|| (name.to_owned(), amounts))
        });
        let server = tenant.servers.iter().find(|known| known.name == server);
        Self {
            agents: limited.collect(),
            replicas: server.map_or(0, |server| server.replicas),
        }
    }
}

/// Reads what a sidecar says of its agents, by name. `None`: no sidecar would say it.
pub fn read(usage: Vec<Usage>) -> Option<BTreeMap<String, Usage>> {
    let is_name = |name: &str| name == ALL_AGENTS || is_text(name, MAX_NAME);
    let fits = usage.len() <= MAX_USAGE && usage.iter().all(|usage| is_name(&usage.agent));
    fits.then(|| {
        usage
            .into_iter()
            .map(|usage| (usage.agent.clone(), usage))
            .collect()
    })
}

impl Parts {
    /// A call of the pod's sidecar has begun. It is told nothing before it has reported.
    pub fn attach(&mut self, pod: &str, call: u64) {
        let replica = self.replicas.entry(pod.to_owned()).or_default();
        (replica.call, replica.told, replica.is_silent) = (call, 0, true);
    }

    /// What a sidecar says on its last call: with the parts of this number in force. `false`: it isn't the last call.
    pub fn report(&mut self, pod: &str, call: u64, number: u64, usage: &BTreeMap<String, Usage>) -> bool {
        let Some(replica) = self.of_call(pod, call) else {
            return false;
        };
        replica.is_silent = false;
        let is_current = number == replica.told;
        let before = std::mem::take(&mut replica.agents);
        for (name, usage) in usage {
            let (held, asked) = (amounts(usage.held.as_ref()), amounts(usage.asked.as_ref()));
            let known = before.get(name).copied().unwrap_or_default();
            let bound = if is_current { held } else { most(known.bound, held) };
            // Before it was told anything, what it gives is what it says that it gives.
            let given = if replica.told == 0 { held } else { known.given };
            let agent = Agent { given, bound, asked };
            replica.agents.insert(name.clone(), agent);
        }
        true
    }

    /// A call has ended: its sidecar may serve on, and isn't told anything.
    pub fn lose(&mut self, pod: &str, call: u64) {
        if let Some(replica) = self.of_call(pod, call) {
            replica.is_silent = true;
        }
    }

    /// A sidecar whose call has ended is gone, or gives no more than its equal part by now.
    pub fn forget(&mut self, pod: &str, call: u64) {
        if let Entry::Occupied(replica) = self.replicas.entry(pod.to_owned())
            && replica.get().call == call
        {
            replica.remove();
        }
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    /// What has to be told now, by the pod's UID.
    pub fn next(&mut self, whole: &Whole) -> BTreeMap<String, control::Parts> {
        let unseen = whole
            .replicas
            .saturating_sub(u32::try_from(self.replicas.len()).unwrap_or(u32::MAX));
        let mut told: BTreeMap<String, control::Parts> = BTreeMap::new();
        let mut news = Vec::new();
        for (name, limits) in &whole.agents {
            for (kind, limit) in limits.iter().enumerate().filter(|(_, limit)| **limit > 0) {
                let equal = limit.div_ceil(whole.replicas.max(1));
                self.divide(name, kind, *limit, equal, unseen, &mut news);
            }
        }
        for pod in news {
            let Some(replica) = self.replicas.get_mut(&pod) else {
                continue;
            };
            let parts = told.entry(pod).or_insert_with(|| {
                replica.told += 1;
                control::Parts {
                    number: replica.told,
                    parts: Vec::new(),
                }
            });
            parts.parts = replica
                .agents
                .iter()
                .map(|(name, agent)| part(name, agent))
                .collect();
        }
        told
    }

    /// Divides one limit. Whose part is another now is added to `news`.
    fn divide(
        &mut self,
        name: &str,
        kind: usize,
        limit: u32,
        equal: u32,
        unseen: u32,
        news: &mut Vec<String>,
    ) {
        let mut whole = limit.saturating_sub(equal.saturating_mul(unseen));
        let mut asked = Vec::new();
        let mut given: u32 = 0;
        for replica in self.replicas.values_mut() {
            if let Some(agent) = replica.divides(name, kind) {
                asked.push(agent.asked[kind]);
                given = given.saturating_add(agent.bound[kind]);
            } else {
                // What it gives can't be changed now, and by itself becomes no more than an equal part.
                let bound = replica.agents.get(name).map_or(0, |agent| agent.bound[kind]);
                whole = whole.saturating_sub(bound.max(equal));
            }
        }
        let targets = fair(whole, &asked);
        let mut free = whole.saturating_sub(given);
        let divided = self
            .replicas
            .iter_mut()
            .filter_map(|(pod, replica)| Some((pod, replica.divides(name, kind)?)));
        for ((pod, agent), target) in divided.zip(targets) {
            let more = target.saturating_sub(agent.bound[kind]).min(free);
            free -= more;
            let part = target.min(agent.bound[kind]) + more;
            if part != agent.given[kind] {
                agent.given[kind] = part;
                agent.bound[kind] = agent.bound[kind].max(part);
                news.push(pod.clone());
            }
        }
    }

    fn of_call(&mut self, pod: &str, call: u64) -> Option<&mut Replica> {
        self.replicas.get_mut(pod).filter(|replica| replica.call == call)
    }
}

impl Replica {
    /// What it gives an agent, if that can be changed: its policy has such a limit, and it listens.
    fn divides(&mut self, agent: &str, kind: usize) -> Option<&mut Agent> {
        let agent = self.agents.get_mut(agent).filter(|agent| agent.bound[kind] > 0);
        agent.filter(|_| !self.is_silent)
    }
}

/// Divides the whole by what is asked for, the smallest wishes first, and what is left equally. Nobody gets nothing.
fn fair(whole: u32, asked: &[u32]) -> Vec<u32> {
    let number = u32::try_from(asked.len()).unwrap_or(u32::MAX).max(1);
    let least = (whole / number / IDLE).max(1);
    let mut parts = vec![least; asked.len()];
    let mut left = whole.saturating_sub(least.saturating_mul(number));
    let mut order: Vec<_> = (0..asked.len()).collect();
    order.sort_by_key(|place| asked[*place]);
    for (place, waiting) in order.into_iter().zip((1..=number).rev()) {
        let more = asked[place].saturating_sub(least).min(left / waiting);
        parts[place] += more;
        left -= more;
    }
    for (part, place) in parts.iter_mut().zip(0..) {
        *part += left / number + u32::from(place < left % number);
    }
    parts
}

fn amounts(amounts: Option<&control::Amounts>) -> Amounts {
    amounts.map_or([0; 2], |amounts| {
        [amounts.requests_per_minute, amounts.concurrent]
    })
}

fn most(one: Amounts, other: Amounts) -> Amounts {
    [one[0].max(other[0]), one[1].max(other[1])]
}

fn part(name: &str, agent: &Agent) -> control::Part {
    let [requests_per_minute, concurrent] = agent.given;
    control::Part {
        agent: name.to_owned(),
        amounts: Some(control::Amounts {
            requests_per_minute,
            concurrent,
        }),
    }
}

#[cfg(test)]
mod tests;
