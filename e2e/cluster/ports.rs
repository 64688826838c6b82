//! Ports of loopback for programs that are told theirs.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

/// A port of 127.0.0.1 that nobody else is given as a free one, as long as this lives.
///
/// It is bound but never listened on. The kernel gives no bound port to who asks for any, nor to an outgoing
/// connection; who asks for this number, with `SO_REUSEADDR` as servers do, gets it (`inet_csk_bind_conflict` of
/// Linux).
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Held, never listened on.
    _bound: Socket,
}

impl Port {
    /// Takes a free one.
    pub fn reserve() -> Result<Self> {
        let take = || {
            let bound = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            bound.set_reuse_address(true)?;
            bound.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
            let address = bound.local_addr()?.as_socket();
            let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
            io::Result::Ok(Self {
                number: address.port(),
                _bound: bound,
            })
        };
        take().context("reserve a port of 127.0.0.1")
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        time::Duration,
    };

    use super::*;
    use crate::run::wait_for;

    /// A socket that was dropped lives on for a moment in a child that another test's thread is just starting.
    fn soon<T>(bind: impl Fn() -> io::Result<T>) -> T {
        wait_for(
            "the port",
            Duration::from_secs(10),
            Duration::from_millis(1),
            || Ok(bind().ok()),
        )
        .unwrap()
    }

    #[test]
    fn a_reserved_port_is_had_by_its_number_and_not_otherwise() {
        let port = Port::reserve().unwrap();
        let address = (Ipv4Addr::LOCALHOST, port.number());
        TcpStream::connect(address).expect_err("nobody listens");
        drop(TcpListener::bind(address).expect("a server gets it"));
        soon(|| TcpListener::bind(address));
        // What the kernel tries for a socket that asks for any port.
        let other = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let bind = || other.bind(&SocketAddr::from(address).into());
        assert_eq!(bind().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(port);
        soon(bind);
    }
}
