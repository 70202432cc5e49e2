//! Images and models in registries: named, pushed, and taken as artifacts.

mod client;
mod pack;
mod place;
mod sign;
mod take;
mod unpack;

pub use pack::{PushModelOptions, push_model};
pub use sign::{sign, verify};
pub use take::{SCHEME, take};
