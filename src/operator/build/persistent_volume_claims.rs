//! A `PersistentVolumeClaim` per persistent volume of a server.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};

use super::meta::{meta, server_labels};
use crate::validate::{ValidatedTenant, VolumeSource};

pub(super) fn persistent_volume_claims(tenant: &ValidatedTenant) -> Vec<PersistentVolumeClaim> {
    let mut claims = Vec::new();
    for server in &tenant.servers {
        for volume in &server.volumes {
            let VolumeSource::Persistent { size, storage_class } = &volume.source else {
                continue;
            };
            claims.push(PersistentVolumeClaim {
                metadata: meta(
                    tenant.name.servers_namespace(),
                    server.name.volume_claim(&volume.name),
                    server_labels(tenant, &server.name),
                ),
                spec: Some(PersistentVolumeClaimSpec {
                    access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
                    storage_class_name: storage_class.clone(),
                    resources: Some(VolumeResourceRequirements {
                        requests: Some([("storage".to_owned(), size.to_api())].into()),
                        limits: None,
                    }),
                    ..PersistentVolumeClaimSpec::default()
                }),
                status: None,
            });
        }
    }
    claims
}
