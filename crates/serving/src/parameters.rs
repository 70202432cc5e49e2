//! What a request says beside its tensors.

use std::time::Duration;

use inference::Request;

/// The parameters that mean something here. Those of sequences are taken and do nothing: every model is stateless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// 1 is the most urgent, 0 the model's default.
    pub priority: u64,
    /// Longest wait in microseconds; 0 is the model's default.
    pub timeout: u64,
}

impl Parameters {
    pub fn apply(self, request: &mut Request) {
        request.priority = u32::try_from(self.priority).unwrap_or(u32::MAX);
        request.timeout = (self.timeout > 0).then(|| Duration::from_micros(self.timeout));
    }
}
