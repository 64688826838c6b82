//! One row: what is measured, what work it does, and the program that does it.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use http::HeaderValue;
use rustls::ClientConfig;

use crate::{load::Target, pki::Pki, process::Process};

/// A row.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// What it does with a call, in words.
    pub(crate) work: &'static str,
    pub(crate) process: Process,
    target: Target,
}

impl Contender {
    /// A program that listens, with TLS or without.
    pub(crate) fn new(
        name: &'static str,
        work: &'static str,
        address: SocketAddr,
        tls: Option<ClientConfig>,
        pki: &Pki,
        process: Process,
    ) -> Result<Self> {
        Ok(Self {
            name,
            work,
            process,
            target: Target {
                address,
                tls: tls.map(Arc::new),
                authorization: HeaderValue::try_from(format!("Bearer {}", pki.token))?,
            },
        })
    }

    /// Where its callers go.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }
}
