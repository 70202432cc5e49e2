//! What holds for every command.

use clap::{Command, CommandFactory};

use super::Cli;

/// Commands that have no `-o`, and why.
const WITHOUT_FORMAT: [(&str, &str); 26] = [
    ("up", "runs until it is ended"),
    ("hub", "runs until it is ended"),
    ("agent", "runs until it is ended"),
    ("serve", "runs until it is ended"),
    ("join-token", "prints the token alone, for scripts"),
    ("site revoke", "changes one thing; its exit status says whether"),
    ("certificate approve", "changes one thing; its exit status says whether"),
    ("certificate deny", "changes one thing; its exit status says whether"),
    ("rollout pause", "changes one thing; its exit status says whether"),
    ("rollout resume", "changes one thing; its exit status says whether"),
    ("rollout promote", "changes one thing; its exit status says whether"),
    ("rollout abort", "changes one thing; its exit status says whether"),
    ("rollout undo", "changes one thing; its exit status says whether"),
    ("source reconcile", "changes one thing; its exit status says whether"),
    ("source suspend", "changes one thing; its exit status says whether"),
    ("source resume", "changes one thing; its exit status says whether"),
    ("source build", "prints manifests, which are YAML"),
    ("crds", "prints manifests, which are YAML"),
    ("artifact sign", "prints a signature, to be written into a manifest"),
    ("artifact verify", "its exit status is the answer"),
    ("logs", "prints what a function printed"),
    ("cp", "copies files"),
    ("ui", "prints an address"),
    ("version", "prints a line"),
    ("completion", "prints a script"),
    ("model push", "pushes one thing, and prints where"),
];

/// Every command that does something itself, by its path.
fn commands() -> Vec<(String, Command)> {
    fn walk(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
        let inner = || command.get_subcommands().filter(|inner| inner.get_name() != "help");
        let acts = inner().next().is_none() || command.is_args_conflicts_with_subcommands_set();
        if acts && !path.is_empty() {
            found.push((path.to_owned(), command.clone()));
        }
        for inner in inner() {
            let path = format!("{path} {}", inner.get_name()).trim().to_owned();
            walk(inner, &path, found);
        }
    }
    let (mut found, mut all) = (Vec::new(), Cli::command());
    all.build();
    walk(&all, "", &mut found);
    found
}

fn has_format(command: &Command) -> bool {
    command.get_arguments().any(|argument| {
        let values = argument.get_possible_values();
        argument.get_short() == Some('o') && values.iter().any(|value| value.get_name() == "json")
    })
}

#[test]
fn every_command_shows_an_example_in_its_help() {
    let commands = commands();
    assert!(commands.len() > 40, "{}", commands.len());
    let without = commands.into_iter().filter_map(|(path, mut command)| {
        let help = command.render_long_help().to_string();
        let name = format!("avocet {path}");
        let shows = help.contains("Example") && help.rsplit("Example").next()?.contains(&name);
        (!shows).then_some(path)
    });
    assert_eq!(without.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn every_command_prints_json_but_for_those_that_have_a_reason() {
    let commands = commands();
    let without: Vec<&str> =
        commands.iter().filter(|(_, command)| !has_format(command)).map(|(path, _)| path.as_str()).collect();
    let excused = |path: &&str| WITHOUT_FORMAT.iter().any(|(excused, _)| excused == path);
    assert_eq!(without.iter().filter(|path| !excused(path)).collect::<Vec<_>>(), Vec::<&&str>::new());
    let superfluous = WITHOUT_FORMAT.iter().filter(|(path, _)| !without.contains(path));
    assert_eq!(superfluous.collect::<Vec<_>>(), Vec::<&(&str, &str)>::new());
}
