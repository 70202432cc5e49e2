//! How a call went.

use crate::api::{Api, CStatus, text};

/// A status object for one call.
pub struct Status {
    api: &'static Api,
    raw: *mut CStatus,
}

impl Status {
    pub fn new(api: &'static Api) -> Status {
        // SAFETY: makes a new object, which `drop` deletes.
        Status { api, raw: unsafe { (api.new_status)() } }
    }

    pub fn raw(&self) -> *mut CStatus {
        self.raw
    }

    /// What the last call said, unless it went well.
    pub fn check(&self) -> Result<(), String> {
        // SAFETY: the object lives as long as `self`; its message is zero-terminated.
        unsafe {
            match (self.api.get_code)(self.raw) {
                0 => Ok(()),
                _ => Err(text((self.api.message)(self.raw))),
            }
        }
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        // SAFETY: made by `new`, deleted once.
        unsafe { (self.api.delete_status)(self.raw) }
    }
}
