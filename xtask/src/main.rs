//! What developers run: `cargo xtask setup | demo | test | ci | bench | dist | tidy`.

mod bench;
mod demo;
mod dist;
mod http;
mod process;
mod setup;
mod signals;
mod sites;
mod tests;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use workspace::Workspace;

/// What developers of Avocet run.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what demo and tests need into the target folder; what is there is kept
    Setup,
    /// Run the mask detection example over two sites on this machine
    Demo(demo::Options),
    /// Check format and lints, run all tests, then the demo as the end-to-end test
    Test(tests::Options),
    /// What continuous integration runs: test, and cargo-deny where it is installed
    Ci,
    /// Measure memory, latency and the overhead of serving, with the program optimised as it ships
    Bench(bench::Options),
    /// Build the program as it ships, with what a site at rest runs in one place of its file: twice, with a recording by
    /// valgrind in between
    Dist(dist::Options),
    /// Check the layers of crates, heavy dependencies, file lengths and leftovers
    Tidy,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = signals::watch().and_then(|()| Workspace::find()).and_then(|workspace| match cli.command {
        Command::Setup => setup::setup(&workspace, setup::Scope::Tests).map(drop),
        Command::Demo(options) => demo::demo(&workspace, &options),
        Command::Test(options) => tests::test(&workspace, &options),
        Command::Ci => tests::ci(&workspace),
        Command::Bench(options) => bench::bench(&workspace, &options),
        Command::Dist(options) => dist::dist(&workspace, &options),
        Command::Tidy => tidy::tidy(&workspace),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
