//! The whole program, as people and machines meet it: real processes, real kills, the real command line.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests stop at the first thing that is not as it should be"
)]

mod applications;
mod backups;
mod boto3;
mod commands;
mod confinement;
mod crashes;
mod damage;
mod departures;
mod facts;
mod failures;
mod helm;
mod hostile_models;
mod identities;
mod joining;
mod kube_client;
mod kubectl;
mod kubectl_session;
mod kubernetes_client;
mod manifests;
mod nesting;
mod networks;
mod offload;
mod outlooks;
mod peers;
mod registry;
mod rollouts;
mod rotation;
mod serve;
mod serve_guarded;
mod serve_restarts;
mod signatures;
mod sources;
mod sources_ssh;
mod storage;
mod support;
mod uploads;
