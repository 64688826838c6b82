//! Who has which address, in a cluster and between clusters on one machine.
//!
//! Every cluster has a number. Its nodes live in 100.64.NUMBER.0/24, the only range of a cluster that the machine itself
//! has a route to. Pod and service ranges are the same in all clusters: they exist inside the nodes' namespaces alone.

use std::{
    fs,
    io::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    machine,
    run::{check, command},
};

/// All pods of a cluster.
pub(crate) const POD_RANGE: &str = "10.244.0.0/16";
/// Where the cluster's names are served.
pub(crate) const SERVICE_DNS: &str = "10.96.0.10";
/// Enough for tests; the address plan has room for more.
pub(crate) const MOST_NODES: u8 = 16;

const HIGHEST: u8 = 99;

/// The addresses of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) number: u8,
}

impl Plan {
    /// The machine's own address on the cluster's network.
    pub(crate) fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(100, 64, self.number, 1)
    }

    pub(crate) fn node(self, node: u8) -> Ipv4Addr {
        Ipv4Addr::new(100, 64, self.number, 10 + node)
    }

    /// The range that a node gives its pods addresses from.
    pub(crate) fn pods(node: u8) -> String {
        format!("10.244.{node}.0/24")
    }

    /// The machine's end of the cable to the cluster. Interface names have 15 characters at most.
    pub(crate) fn host_link(self) -> String {
        format!("bulkhead{}", self.number)
    }

    /// The cluster's place among the control groups.
    pub(crate) fn cgroup(self) -> String {
        format!("bulkhead-{}", self.number)
    }
}

/// A number that belongs to one cluster of this machine for as long as the mark in `/run` stands.
///
/// The mark is outside every work tree because the network is: two work trees must not draw the same number. A restart
/// of the machine clears the marks and the networks together.
pub(crate) struct Numbers {
    marks: PathBuf,
}

impl Numbers {
    pub(crate) fn of_this_machine() -> Self {
        Self {
            marks: PathBuf::from("/run/bulkhead-cluster"),
        }
    }

    /// Takes the number that the cluster had, or the lowest free one.
    pub(crate) fn claim(&self, owner: &Path, had: Option<u8>) -> Result<u8> {
        fs::create_dir_all(&self.marks).with_context(|| format!("create {}", self.marks.display()))?;
        if let Some(number) = had {
            ensure!(
                self.take(number, owner)?,
                "the network 100.64.{number}.0/24 of this cluster is now another's: run `down`, then `up` again"
            );
            return Ok(number);
        }
        let routes = check(command("ip").args(["-4", "route", "show", "table", "all"]))?;
        for number in 0..=HIGHEST {
            if !is_routed(&routes, number) && self.take(number, owner)? {
                return Ok(number);
            }
        }
        bail!("every network from 100.64.0.0/24 to 100.64.{HIGHEST}.0/24 is in use");
    }

    /// Makes the mark, or finds that it is ours already.
    fn take(&self, number: u8, owner: &Path) -> Result<bool> {
        let mark = self.mark(number);
        match fs::File::create_new(&mark) {
            Ok(mut file) => {
                file.write_all(owner.as_os_str().as_encoded_bytes())?;
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Ok(fs::read(&mark)? == owner.as_os_str().as_encoded_bytes())
            }
            Err(error) => Err(error).with_context(|| format!("write {}", mark.display())),
        }
    }

    /// Gives the number back.
    pub(crate) fn release(&self, number: u8, owner: &Path) -> Result<()> {
        let mark = self.mark(number);
        if fs::read(&mark).is_ok_and(|holder| holder == owner.as_os_str().as_encoded_bytes()) {
            fs::remove_file(&mark)?;
        }
        let others = fs::read_dir(&self.marks)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.path().is_file());
        if !others {
            machine::restore(&self.shared());
            let _ = fs::remove_dir(&self.marks);
        }
        Ok(())
    }

    /// Notes on what all clusters of this machine share.
    pub(crate) fn shared(&self) -> PathBuf {
        self.marks.join("shared")
    }

    fn mark(&self, number: u8) -> PathBuf {
        self.marks.join(number.to_string())
    }
}

/// Whether the machine has a route into a network of ours already: a VPN that also uses the shared range, say.
fn is_routed(routes: &str, number: u8) -> bool {
    routes
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("100.")))
        .any(|destination| {
            let (address, length) = destination.split_once('/').unwrap_or((destination, "32"));
            let (Ok(address), Ok(length)) = (address.parse::<Ipv4Addr>(), length.parse::<u32>()) else {
                return false;
            };
            let ours = u32::from(Ipv4Addr::new(100, 64, number, 0));
            let mask = u32::MAX.checked_shl(32 - length.min(24)).unwrap_or(0);
            u32::from(address) & mask == ours & mask
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_and_nodes_have_addresses_of_their_own() {
        let (one, two) = (Plan { number: 1 }, Plan { number: 2 });
        assert_ne!(one.node(0), two.node(0));
        assert_ne!(one.node(0), one.node(1));
        assert_ne!(one.node(0), one.host());
        assert!(Plan { number: HIGHEST }.host_link().len() <= 15);
    }

    #[test]
    fn a_number_belongs_to_one_cluster_until_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let numbers = Numbers {
            marks: dir.path().join("marks"),
        };
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        let first = numbers.claim(a, None).unwrap();
        assert_eq!(numbers.claim(a, Some(first)).unwrap(), first);
        assert_ne!(numbers.claim(b, None).unwrap(), first);
        assert!(numbers.claim(b, Some(first)).is_err());
        numbers.release(first, b).unwrap();
        assert!(numbers.claim(b, Some(first)).is_err());
        numbers.release(first, a).unwrap();
        assert_eq!(numbers.claim(b, Some(first)).unwrap(), first);
    }

    #[test]
    fn a_network_with_a_route_is_not_taken() {
        assert!(is_routed("100.64.3.0/24 dev tun0 scope link", 3));
        assert!(is_routed("100.64.0.0/10 dev tun0", 3));
        assert!(is_routed("local 100.64.3.7 dev tun0 table local", 3));
        assert!(!is_routed(
            "default via 192.0.2.1 dev eth0\n100.64.4.0/24 dev tun0",
            3
        ));
    }
}
