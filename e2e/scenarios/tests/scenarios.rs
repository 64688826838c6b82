//! The scenarios, one file each. They share one cluster and the two sample tenants; a scenario that
//! changes a tenant makes its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a scenario fails by panicking"
)]

mod scenarios {
    mod arguments;
    mod bad_specs;
    mod connect;
    mod crossing;
    mod definitions;
    mod deletion;
    mod drift;
    mod egress;
    mod first_contact;
    mod operator_restart;
    mod people;
    mod persons;
    mod renewal;
    mod replicas;
    mod rollout;
    mod sandbox;
    mod shared_role;
    mod tokens;
    mod visibility;
}
