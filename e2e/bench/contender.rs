//! One row: what is measured, what work it does, and the program that does it.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use http::HeaderValue;
use rustls::ClientConfig;

use crate::{call::Form, load::Target, pki::Pki, process::Process};

/// A row.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// What it does with a call, in words.
    pub(crate) work: &'static str,
    pub(crate) process: Process,
    target: Target,
    neighbour: Option<Target>,
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
                form: Form::Json,
                may_be_refused: false,
            },
            neighbour: None,
        })
    }

    /// The same, whose answers come in this form.
    pub(crate) fn answering(mut self, form: Form) -> Self {
        self.target.form = form;
        self
    }

    /// The same, and what it does to one agent while another floods is measured too.
    pub(crate) fn with_neighbour(self, pki: &Pki) -> Result<Self> {
        let neighbour = Target {
            address: self.target.address,
            tls: Some(Arc::new(pki.neighbours_config()?)),
            authorization: HeaderValue::try_from(format!("Bearer {}", pki.neighbours_token))?,
            form: self.target.form,
            may_be_refused: true,
        };
        Ok(Self {
            neighbour: Some(neighbour),
            ..self
        })
    }

    /// Where another agent's callers go, when that is measured.
    pub(crate) fn neighbour(&self) -> Option<&Target> {
        self.neighbour.as_ref()
    }

    /// Where its callers go.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }
}
