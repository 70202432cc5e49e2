//! `ResourceQuota`: what there is of what a quota counts.

use store::Object;
use types::core::ResourceQuotaSpec;
use types::{KindInfo, Resource};

use crate::write::Write;

/// Tells how many objects there are where that is not what the status says; `count` knows it of every kind.
pub(crate) fn reconcile(quota: &Object, count: impl Fn(&'static KindInfo) -> usize) -> Option<Write> {
    let mut quota: Resource<ResourceQuotaSpec> = quota.resource().ok()?;
    let status = quota.spec.status(count);
    if quota.status == status {
        return None;
    }
    quota.status = status;
    Some(Write::status(&quota))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use store::Key;
    use types::Kind;

    use super::*;
    use crate::write::Action;

    fn quota(status: &Value) -> Object {
        let manifest = json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "default"},
            "spec": {"hard": {"count/configmaps": "5", "secrets": "2"}}, "status": status,
        });
        Object::unstored(Key::new(ResourceQuotaSpec::PLURAL, "default", "q"), manifest).unwrap()
    }

    #[test]
    fn a_quota_tells_what_there_is() {
        let count = |info: &'static KindInfo| if info.plural == "secrets" { 2 } else { 1 };
        let write = reconcile(&quota(&json!({})), count).unwrap();
        let Action::Status(written) = write.action else { panic!("{write:?}") };
        assert_eq!(written["status"]["used"], json!({"count/configmaps": "1", "secrets": "2"}));
        assert_eq!(written["status"]["hard"], written["spec"]["hard"]);
        assert_eq!(reconcile(&quota(&written["status"]), count), None, "it is as it says");
    }
}
