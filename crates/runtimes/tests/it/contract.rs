//! What a function finds and how its end is told.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use avocet_runtimes::{Exit, Level, Options, Runtimes};
use types::Runtime;

use crate::{Invocation, SHIM, runtimes};

#[tokio::test]
async fn a_function_reads_its_input_and_leaves_outputs() {
    let function = Invocation::python(
        "import os, pathlib\n\
         text = open(os.environ['INPUT_FILE_PATH']).read()\n\
         out = pathlib.Path(os.environ['TMP_OUTPUT_DIR'], 'deep')\n\
         out.mkdir()\n\
         (out / 'upper.txt').write_text(text.upper())\n\
         open('scratch', 'w').write('in the working folder')\n\
         print('done')\n",
    );
    let outcome = function.run().await;
    assert!(outcome.succeeded(), "{outcome:?} {}", function.log());
    assert_eq!(outcome.reason(), "Succeeded");
    assert_eq!(function.output("deep/upper.txt"), "A PHOTO");
    assert!(function.path("work/scratch").exists());
    assert_eq!(function.log(), "done\n");
    assert_eq!(outcome.log_bytes, 5);
    assert!(!outcome.stray);
}

#[tokio::test]
async fn the_environment_is_the_contract_and_nothing_of_the_agents() {
    let function = Invocation::python("import json, os; print(json.dumps(dict(os.environ)))")
        .environment("COLOUR", "teal")
        .environment("LANG", "C.utf8")
        .environment("INPUT_FILE_PATH", "/etc/passwd")
        .with(|run| {
            run.event = Some(r#"{"a":  1}"#.into());
            run.storage_object_key = Some("in/photo.txt".into());
        });
    assert!(function.run().await.succeeded(), "{}", function.log());
    let mut environment: BTreeMap<String, String> = serde_json::from_str(&function.log()).unwrap();
    let path = environment.remove("PATH").unwrap();
    assert!(path.ends_with(":/usr/local/bin:/usr/bin:/bin"), "{path}");
    let at = |name| function.path(name).to_str().unwrap().to_owned();
    let expected = [
        ("COLOUR", "teal".to_owned()),
        ("EVENT", r#"{"a":  1}"#.to_owned()),
        ("HOME", at("work")),
        ("INPUT_FILE_PATH", at("input/photo.txt")),
        ("LANG", "C.utf8".to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ("PYTHONUNBUFFERED", "1".to_owned()),
        ("STORAGE_OBJECT_KEY", "in/photo.txt".to_owned()),
        ("TMPDIR", at("work")),
        ("TMP_INPUT_DIR", at("input")),
        ("TMP_OUTPUT_DIR", at("output")),
    ];
    assert_eq!(environment, expected.map(|(key, value)| (key.to_owned(), value)).into());
}

#[tokio::test]
async fn an_event_too_large_for_the_environment_is_in_its_file() {
    for (length, is_set) in [(131_065, "yes"), (131_066, "no"), (1 << 20, "no")] {
        let function = Invocation::shell(
            "if [ -n \"$EVENT\" ]; then printf yes; else printf no; fi; wc -c <$TMP_INPUT_DIR/event.json",
        )
        .with(|run| run.event = Some("e".repeat(length)));
        let outcome = function.run().await;
        assert!(outcome.succeeded(), "{outcome:?} {}", function.log());
        assert_eq!(function.log().trim(), format!("{is_set}{length}"));
    }
}

#[tokio::test]
async fn an_events_file_is_not_written_through_a_link() {
    let function = Invocation::shell("true").with(|run| run.event = Some("{}".into()));
    fs::write(function.path("precious"), "precious").unwrap();
    std::os::unix::fs::symlink(function.path("precious"), function.path("input/event.json")).unwrap();
    assert!(function.run().await.succeeded());
    assert_eq!(fs::read_to_string(function.path("precious")).unwrap(), "precious");
}

#[tokio::test]
async fn a_code_other_than_0_is_a_failure_and_the_message_has_the_last_line() {
    let function = Invocation::shell("echo starting; echo 'no such model: résumé' >&2; echo; exit 7");
    let outcome = function.run().await;
    assert_eq!(outcome.exit, Exit::Exited(7));
    assert_eq!(outcome.reason(), "ExitedWithError");
    let message = outcome.message();
    assert!(message.starts_with("exited with code 7 after "), "{message}");
    assert!(message.ends_with("; its last line was `no such model: résumé`"), "{message}");
    assert_eq!(function.log(), "starting\nno such model: résumé\n\n");
}

#[tokio::test]
async fn a_signal_is_told_apart_from_a_code() {
    let outcome = Invocation::shell("kill -SEGV $$").run().await;
    assert_eq!(outcome.exit, Exit::Signaled(11));
    assert_eq!(outcome.reason(), "KilledBySignal");
}

#[tokio::test]
async fn a_log_keeps_its_beginning_and_its_end_and_does_not_change_the_exit_code() {
    let function = Invocation::shell(
        "echo first; head -c 60000000 /dev/zero | tr '\\0' x; echo; echo the end >&2; exit 3",
    );
    let outcome = function.run().await;
    assert_eq!(outcome.exit, Exit::Exited(3));
    assert_eq!(outcome.log_bytes, 60_000_015);
    assert_eq!(outcome.last_line.as_deref(), Some("the end"));
    let log = function.log();
    assert!(log.len() < 17 << 20 && log.starts_with("first\n") && log.contains(" bytes left out]\n"));
}

#[tokio::test]
async fn a_binary_is_its_own_handler_and_must_be_executable() {
    let function = Invocation::new(Runtime::Binary, "#!/bin/sh\necho hi\n");
    assert!(function.run().await.succeeded());
    fs::set_permissions(function.path("bundle/handler"), fs::Permissions::from_mode(0o644)).unwrap();
    let outcome = function.run().await;
    assert_eq!(outcome.reason(), "Refused");
    assert!(outcome.message().contains("see that it is executable"), "{}", outcome.message());
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let function = Invocation::shell("").with(|run| run.handler = "other.sh".into());
    let message = function.run().await.message();
    assert!(
        message.contains("`other.sh` is not a file in the artifact; correct `spec.handler`"),
        "{message}"
    );

    let options = Options {
        python: Some("/nowhere/python".into()),
        shim: vec!["/nowhere/avocet".into()],
        ..Options::default()
    };
    let poor = Runtimes::discover(options).await;
    assert!(poor.python_problem().unwrap().contains("can't run `/nowhere/python`"));
    assert!(!poor.available().iter().any(|(runtime, _)| *runtime == Runtime::Python));
    let outcome = poor.run(&Invocation::python("").run).await;
    assert!(outcome.message().contains("/nowhere/python"), "{}", outcome.message());
    let outcome = poor.run(&Invocation::shell("").run).await;
    assert!(outcome.message().contains("can't start the shim"), "{}", outcome.message());
}

#[tokio::test]
async fn what_is_there_is_described() {
    let runtimes = runtimes().await;
    let available = runtimes.available();
    assert!(
        available.iter().any(|(runtime, text)| *runtime == Runtime::Python && text.contains("Python 3."))
    );
    assert!(available.iter().any(|(runtime, _)| *runtime == Runtime::Shell));
}

/// Makes this thread and what it starts believe that the kernel has no Landlock.
fn without_landlock() {
    let rules = [(libc::SYS_landlock_create_ruleset, Vec::new())].into();
    let filter = seccompiler::SeccompFilter::new(
        rules,
        seccompiler::SeccompAction::Allow,
        seccompiler::SeccompAction::Errno(libc::ENOSYS as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn where_the_kernel_cannot_confine_a_run_needs_the_sites_permission() {
    without_landlock();
    let function = Invocation::shell("echo ran");
    let mut options = Options { shim: vec![SHIM.into()], ..Options::default() };
    let strict = Runtimes::discover(options.clone()).await;
    assert_eq!(strict.level(), Level::None);
    let outcome = strict.run(&function.run).await;
    assert_eq!(outcome.reason(), "Refused");
    assert!(outcome.message().contains("can't confine functions; use Linux 5.13"), "{}", outcome.message());
    assert_eq!(function.log(), "");

    options.allow_unconfined = true;
    let outcome = Runtimes::discover(options).await.run(&function.run).await;
    assert!(outcome.succeeded(), "{outcome:?}");
    assert_eq!(outcome.level, Level::None);
}
