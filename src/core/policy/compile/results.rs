//! Rules about results of tools and contents of resources.

use std::sync::Arc;

use super::{CompileError, invalid, names_nothing, value_of};
use crate::{
    policy::{
        document::{Enforcement, Forced, Results},
        persons::Facts,
        records::{OwnedPaths, OwnedRule, ResultRule},
    },
    reason::Reason,
};

/// What results must satisfy, whoever asks.
#[derive(Debug)]
pub(in crate::policy) struct CompiledResults {
    owned: Option<(Arc<OwnedPaths>, Forced)>,
    max_records: Option<usize>,
    max_bytes: Option<usize>,
    enforcement: Enforcement,
}

impl CompiledResults {
    /// Compiles what a rule says of results, if it says anything.
    pub fn compile(results: Option<Results>, rule: &str) -> Result<Option<Self>, CompileError> {
        let results = results.map(Self::understand).transpose();
        results.map_err(|problem| invalid(format!("{rule}.results"), problem))
    }

    fn understand(results: Results) -> Result<Self, &'static str> {
        if results.owned.is_none() && results.max_records.is_some() {
            return Err("has maxRecords without owned, which says where records are");
        }
        let owned = results.owned.map(|owned| {
            if names_nothing(&owned.equals) {
                return Err("names no attribute or claim");
            }
            let paths = OwnedPaths::parse(&owned)
                .ok_or("has a path that is neither $ nor $.name.name, or a field that is no name.name")?;
            Ok((Arc::new(paths), owned.equals))
        });
        let most = |most: Option<u32>| most.and_then(|most| usize::try_from(most).ok());
        Ok(Self {
            owned: owned.transpose()?,
            max_records: most(results.max_records),
            max_bytes: most(results.max_bytes),
            enforcement: results.enforcement,
        })
    }

    /// The rule for a caller of whom this is known.
    pub fn resolve(&self, facts: Facts<'_>) -> Result<ResultRule, Reason> {
        let owned = self
            .owned
            .as_ref()
            .map(|(paths, equals)| Ok(OwnedRule::new(paths, &value_of(equals, facts)?)));
        Ok(ResultRule {
            owned: owned.transpose()?,
            max_records: self.max_records,
            max_bytes: self.max_bytes,
            enforcement: self.enforcement,
        })
    }

    /// Whether results are filtered by owner.
    pub fn is_owned(&self) -> bool {
        self.owned.is_some() && self.enforcement.is_enforced()
    }
}
