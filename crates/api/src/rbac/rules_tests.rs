use super::*;
use proptest::prelude::*;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> PolicyRule {
    PolicyRule {
        verbs: words(verbs),
        api_groups: words(groups),
        resources: words(resources),
        resource_names: words(names),
        non_resource_urls: vec![],
    }
}

fn urls(verbs: &[&str], urls: &[&str]) -> PolicyRule {
    PolicyRule { verbs: words(verbs), non_resource_urls: words(urls), ..PolicyRule::default() }
}

/// `verb group resource[/subresource] [name]`, or `verb /path`.
fn may(rule: &PolicyRule, asked: &str) -> bool {
    let parts: Vec<&str> = asked.split(' ').collect();
    if parts[1].starts_with('/') {
        return allows(rule, &Attempt::Path { verb: parts[0], path: parts[1] });
    }
    let (plural, subresource) = parts[2].split_once('/').unwrap_or((parts[2], ""));
    let name = parts.get(3).copied().unwrap_or_default();
    let group = if parts[1] == "core" { "" } else { parts[1] };
    let attempt = ResourceAttempt { verb: parts[0], group, plural, subresource, name, ..Default::default() };
    allows(rule, &Attempt::Resource(attempt))
}

#[test]
fn every_shape_of_rule_allows_what_kubernetes_says_it_does() {
    let table: [(PolicyRule, &[&str], &[&str]); 13] = [
        (
            rule(&["get", "list"], &[""], &["pods"], &[]),
            &["get core pods", "get core pods a", "list core pods"],
            &["watch core pods", "get apps pods", "get core pods/status", "get core secrets", "get /pods"],
        ),
        (rule(&["*"], &[""], &["pods"], &[]), &["made-up core pods", "* core pods"], &["get core nodes"]),
        (rule(&["get"], &["*"], &["pods"], &[]), &["get core pods", "get apps pods"], &["list core pods"]),
        (
            rule(&["get"], &[""], &["*"], &[]),
            &["get core pods", "get core pods/status a", "get core secrets a"],
            &["get apps pods", "get /healthz"],
        ),
        (
            rule(&["update"], &[""], &["pods/status"], &[]),
            &["update core pods/status a"],
            &["update core pods a", "update core pods/scale a", "update core nodes/status a"],
        ),
        (
            rule(&["update"], &["*"], &["*/scale"], &[]),
            &["update apps deployments/scale a", "update core x/scale"],
            &["update apps deployments a", "update apps deployments/status a", "update apps scale"],
        ),
        (
            rule(&["get", "list", "watch", "create", "deletecollection"], &[""], &["pods"], &["a", "b"]),
            &["get core pods a", "list core pods b", "watch core pods a"],
            &["get core pods c", "list core pods", "create core pods", "deletecollection core pods"],
        ),
        (rule(&[], &["*"], &["*"], &[]), &[], &["get core pods", "* core pods"]),
        (rule(&["get"], &[], &["*"], &[]), &[], &["get core pods"]),
        (
            urls(&["get"], &["/version", "/api/*"]),
            &["get /version", "get /api/", "get /api/v1/x"],
            &["get /version/", "get /api", "get /apis", "post /version", "get core version"],
        ),
        (urls(&["get", "post"], &["*"]), &["get /", "post /anything/at/all"], &["put /", "get core pods"]),
        (urls(&["*"], &["/logs*"]), &["put /logs", "get /logs/x", "get /logsome"], &["get /log"]),
        (urls(&["get"], &["/a/*/b"]), &["get /a/*/b"], &["get /a/x/b"]),
    ];
    for (rule, allowed, refused) in table {
        for asked in allowed {
            assert!(may(&rule, asked), "{} allows {asked}", describe(&rule));
        }
        for asked in refused {
            assert!(!may(&rule, asked), "{} does not allow {asked}", describe(&rule));
        }
    }
}

#[test]
fn what_is_missing_is_told_in_parts_with_their_verbs_together() {
    let table: [(Vec<PolicyRule>, PolicyRule, &[&str]); 9] = [
        (
            vec![],
            rule(&["get", "list"], &[""], &["pods"], &[]),
            &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}"#],
        ),
        (
            vec![rule(&["get"], &["", "apps"], &["pods", "secrets"], &[])],
            rule(&["get", "watch"], &[""], &["pods"], &[]),
            &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["watch"]}"#],
        ),
        // Held in pieces is held.
        (
            vec![rule(&["get"], &[""], &["pods"], &[]), rule(&["list"], &[""], &["pods"], &[])],
            rule(&["get", "list"], &[""], &["pods"], &[]),
            &[],
        ),
        // All names are more than some names.
        (
            vec![rule(&["get"], &[""], &["pods"], &["a"])],
            rule(&["get"], &[""], &["pods"], &[]),
            &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#],
        ),
        (
            vec![rule(&["get"], &[""], &["pods"], &["a"])],
            rule(&["get"], &[""], &["pods"], &["a", "b"]),
            &[r#"{APIGroups:[""], Resources:["pods"], ResourceNames:["b"], Verbs:["get"]}"#],
        ),
        // All that there is now is not all that there will be.
        (
            vec![rule(
                &["get", "list", "watch", "create", "update", "patch", "delete"],
                &[""],
                &["pods"],
                &[],
            )],
            rule(&["*"], &[""], &["pods"], &[]),
            &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["*"]}"#],
        ),
        (
            vec![rule(&["get"], &[""], &["*/scale"], &[])],
            rule(&["get"], &[""], &["pods/scale", "*/status"], &[]),
            &[r#"{APIGroups:[""], Resources:["*/status"], Verbs:["get"]}"#],
        ),
        (vec![rule(&["*"], &["*"], &["*"], &[])], rule(&["*"], &["x"], &["*/status", "y"], &["z"]), &[]),
        (
            vec![urls(&["get"], &["/api/*"])],
            urls(&["get"], &["/api/v1", "/api*"]),
            &[r#"{NonResourceURLs:["/api*"], Verbs:["get"]}"#],
        ),
    ];
    for (owned, wanted, expected) in table {
        let told: Vec<String> = missing(&owned, std::slice::from_ref(&wanted)).iter().map(describe).collect();
        assert_eq!(told, expected, "{} of {owned:?}", describe(&wanted));
    }
}

fn some(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(of).prop_map(str::to_owned), 0..3)
}

const VERBS: &[&str] = &["get", "list", "create", "*"];
const GROUPS: &[&str] = &["", "apps", "*"];
const RESOURCES: &[&str] = &["pods", "pods/status", "nodes", "*/status", "*"];
const NAMES: &[&str] = &["a", "b"];
const URLS: &[&str] = &["/api", "/api/*", "/version", "*"];

prop_compose! {
    fn any_rule()(
        verbs in some(VERBS), api_groups in some(GROUPS), resources in some(RESOURCES), resource_names in some(NAMES),
        non_resource_urls in some(URLS),
    ) -> PolicyRule {
        PolicyRule { verbs, api_groups, resources, resource_names, non_resource_urls }
    }
}

prop_compose! {
    fn any_attempt()(
        verb in prop::sample::select(&["get", "list", "create"][..]), group in prop::sample::select(&["", "apps"][..]),
        plural in prop::sample::select(&["pods", "nodes"][..]), subresource in prop::sample::select(&["", "status"][..]),
        name in prop::sample::select(&["", "a", "c"][..]), path in prop::sample::select(&["", "/api", "/api/v1", "/x"][..]),
    ) -> Attempt<'static> {
        if path.is_empty() {
            Attempt::Resource(ResourceAttempt { verb, group, plural, subresource, name, ..Default::default() })
        } else {
            Attempt::Path { verb, path }
        }
    }
}

fn all_allow(rules: &[PolicyRule], attempt: &Attempt) -> bool {
    rules.iter().any(|rule| allows(rule, attempt))
}

proptest! {
    #[test]
    fn what_is_allowed_is_named_by_a_rule(rule in any_rule(), attempt in any_attempt()) {
        if allows(&rule, &attempt) {
            let names = |words: &[String], word: &str| words.iter().any(|known| known == "*" || known == word);
            prop_assert!(names(&rule.verbs, attempt.verb()));
            match attempt {
                Attempt::Path { .. } => prop_assert!(!rule.non_resource_urls.is_empty()),
                Attempt::Resource(wanted) => {
                    prop_assert!(names(&rule.api_groups, wanted.group));
                    let part = ["/", wanted.subresource].concat();
                    let is_named = |known: &String| {
                        known == "*" || known.contains(wanted.plural) || known.ends_with(&part)
                    };
                    prop_assert!(rule.resources.iter().any(is_named));
                    prop_assert!(rule.resource_names.is_empty() || !wanted.name.is_empty());
                }
            }
        }
    }

    #[test]
    fn another_rule_never_takes_away(
        rules in prop::collection::vec(any_rule(), 0..4), more in any_rule(), attempt in any_attempt(),
    ) {
        let mut added = rules.clone();
        added.push(more);
        prop_assert!(!all_allow(&rules, &attempt) || all_allow(&added, &attempt));
    }

    #[test]
    fn rules_of_which_nothing_is_missing_allow_nothing_new(
        owned in prop::collection::vec(any_rule(), 0..4), wanted in any_rule(), attempt in any_attempt(),
    ) {
        let lacking = missing(&owned, std::slice::from_ref(&wanted));
        if allows(&wanted, &attempt) && !all_allow(&owned, &attempt) {
            prop_assert!(all_allow(&lacking, &attempt), "{attempt:?} is gained and not told as missing: {lacking:?}");
        }
        // What was missing is all that was missing.
        let mut complete = owned;
        complete.extend(lacking);
        prop_assert_eq!(missing(&complete, &[wanted]), vec![]);
    }
}
