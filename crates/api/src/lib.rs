//! The hub's HTTP API.
//!
//! - `/apis/avocet.dev/v1alpha1/…`: the resources, as the Kubernetes API serves them ([`resources`], [`watch`],
//!   [`table`], [`discovery`]), so that kubectl and kube clients work.
//! - `/avocet/v1/…`: what sites need: joining and heartbeats ([`sites`]), artifacts ([`blobs`]), and the mailbox
//!   through which outputs travel from site to site ([`mailbox`]).
//! - `/ui`: one page to look at results.
//!
//! Every request but those for health, version and joining carries a bearer token; [`authentication`] says who that is and
//! [`access`] what they may do.

pub mod access;
pub mod authentication;
mod blobs;
pub mod client;
mod discovery;
mod error;
mod hub;
mod json_path;
mod listener;
mod mailbox;
mod managed_fields;
mod pages;
mod patch;
mod protobuf;
mod resources;
mod reviews;
mod server;
mod site_tokens;
mod sites;
mod table;
mod ui;
mod watch;

pub use client::Client;
pub use error::ApiError;
pub use hub::Hub;
pub use mailbox::{Delivery, Mailbox};
pub use pages::Pages;
pub use server::{router, serve};
pub use site_tokens::SiteTokens;
pub use sites::{JoinRequest, JoinResponse};
