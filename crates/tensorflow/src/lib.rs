//! TensorFlow's C API, opened at run time, behind safe types.
//!
//! The other crates of the workspace forbid `unsafe`; calling C needs it, so it is all here, in two parts: `api`
//! names the functions of the library, [`Session`] calls them. Everything that leaves this crate is checked or
//! owned by Rust.
//!
//! What can't be guarded against: a library that is not TensorFlow but has its functions, and a graph that makes
//! TensorFlow itself abort the process.

mod api;
mod session;
mod status;
mod tensor;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use session::{Port, Session};
pub use tensor::{DataType, Feed, Payload, Value};

/// An opened library. It stays open for the life of the process: TensorFlow's threads never end.
pub struct Tensorflow {
    api: &'static api::Api,
    path: PathBuf,
    version: String,
}

impl Tensorflow {
    /// Opens `libtensorflow_cc.so.2` or `libtensorflow.so.2`; `libtensorflow_framework.so.2` lies beside it. Takes
    /// half a second and 300 MB of address space, most of it the file itself.
    ///
    /// # Errors
    /// When the file is no shared library, lacks what it needs, or is older than TensorFlow 2.4.
    pub fn open(path: &Path) -> Result<Arc<Tensorflow>, String> {
        let api = api::Api::open(path)?;
        let version = api.version();
        Ok(Arc::new(Tensorflow { api, path: path.into(), version }))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As the library says it, such as `2.21.0`.
    pub fn version(&self) -> &str {
        &self.version
    }
}
