//! The hub's HTTP API.
//!
//! - `/api/v1/…`, `/apis/…`: the resources, as the Kubernetes API serves them ([`resources`], [`writes`], [`watch`],
//!   [`table`], [`discovery`]), so that kubectl and kube clients work.
//! - `/avocet/v1/…`: what sites need: joining ([`joining`]) and heartbeats ([`sites`]), artifacts ([`blobs`]), and the mailbox
//!   through which outputs travel from site to site ([`mailbox`]), and work that a busy site offers to others ([`offload`]);
//!   what a hub asks that is itself a site ([`nesting`]). Forges tell of new commits at a Source's webhook ([`webhooks`]);
//!   sites fetch what only they reach ([`errands`]).
//! - `/v2/`: images and other artifacts, as OCI clients want them ([`images`]); also at a port of its own.
//! - `/ui`: one page to look at results.
//!
//! Every request but those for health, version, joining and the next certificate carries a bearer token or shows a certificate;
//! [`authentication`] says who that is and [`rbac`] what they may do; [`audit`] writes down what they did.

mod admission;
mod approval;
pub mod audit;
pub mod authentication;
mod authority;
mod bells;
mod blobs;
mod body;
mod bootstrap;
pub mod client;
mod definitions;
mod deletion;
mod discovery;
mod egress;
mod errands;
mod error;
mod filter;
mod form;
#[doc(hidden)]
pub mod fuzzing;
mod garbage;
mod health;
mod hub;
mod images;
mod inside;
mod joining;
mod json_path;
mod layout;
mod limits;
mod listener;
mod mailbox;
mod metrics;
mod nesting;
mod offload;
mod openapi;
mod options;
mod outlooks;
mod pages;
mod patch;
mod peers;
mod protobuf;
mod quotas;
pub mod rbac;
mod request;
mod resources;
mod reviews;
mod server;
mod site_tokens;
mod sites;
mod subresources;
mod table;
mod target;
mod ui;
mod upstream;
mod watch;
mod webhooks;
mod wire;
mod writes;

pub use authority::{AuthorityAnswer, Told as ToldAuthority, Trust};
pub use bootstrap::bootstrap;
pub use client::Client;
pub use egress::{Egress, Options as EgressOptions};
pub use error::ApiError;
pub use garbage::collect_regularly as collect_garbage_regularly;
pub use hub::Hub;
pub use images::serve_registry;
pub use inside::Inside;
pub use joining::{CertificateRequest, CertificateResponse, JoinRequest, JoinResponse};
pub use limits::{Limits, Options as LimitOptions};
pub use listener::serve as serve_encrypted;
pub use mailbox::{
    Arriving, ArrivingError, Beginning, Delivery, DeliveryKind, LISTENS, Mailbox, tend as tend_mailbox,
};
pub use metrics::Metrics;
pub use nesting::{Child, Children, ChildrenAnswer, Refused, Report, Reports, Unreported, next_hop};
pub use offload::{Answer, Answers, Ask, Note, Question, Relay};
pub use outlooks::Outlooks;
pub use pages::Pages;
pub use peers::{
    MOST_ARTIFACTS, Neighbour, PeerAnswer, PeerOffer, PeerQuestion, Peers, TOLD_EVERY, peer_ticket,
};
pub use quotas::Turns as QuotaTurns;
pub use server::{router, serve};
pub use site_tokens::SiteTokens;
pub use sites::{Heartbeat, HeartbeatAnswer, INSTANCE};
pub use upstream::Upstream;
