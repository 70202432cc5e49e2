//! Avocet runs AI applications over cloud and edge.

mod apply;
mod artifact;
mod authority;
mod backup;
mod cli;
mod config;
mod copy;
mod describe;
mod engines;
mod get;
mod hub;
mod invocations;
mod join;
mod lock;
mod manifest;
mod model;
mod oci;
mod output;
mod placement;
mod restore;
mod rollout;
mod serve;
mod settle;
mod site_tree;
mod source;
mod tokens;
mod ui;
mod up;
mod worker;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command, PlacementCommand};

#[global_allocator]
static HEAP: heap::Allocator = heap::ALLOCATOR;

fn main() -> ExitCode {
    // The shim confines itself and becomes a function; it must come before any thread is there.
    if std::env::args_os().nth(1).is_some_and(|word| word == "runtime-shim") {
        return runtimes::shim_main();
    }
    // So does the process of a model that isn't trusted.
    if std::env::args_os().nth(1).is_some_and(|word| word == worker::SUBCOMMAND) {
        return worker::main();
    }
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: can't start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let client = &cli.client;
    match cli.command {
        Command::Up(options) => up::up(*options).await,
        Command::Hub(options) => up::hub(options).await,
        Command::Agent(options) => up::agent(options).await,
        Command::Serve(options) => serve::serve(*options).await,
        Command::Backup(options) => backup::backup(&options),
        Command::Restore(options) => restore::restore(&options),
        Command::JoinToken(options) => join::join_token(client, options).await,
        Command::Site(command) => join::site(client, command).await,
        Command::Authority(command) => authority::authority(client, command).await,
        Command::Certificate(command) => join::certificate(client, command).await,
        Command::Token(command) => tokens::token(client, command).await,
        Command::Apply(options) => apply::apply(client, options).await,
        Command::Push(options) => apply::push(client, &options).await,
        Command::Artifact(command) => artifact::artifact(client, &command).await,
        Command::Get(options) => get::get(client, options).await,
        Command::Describe(options) => describe::describe(client, options).await,
        Command::Delete(options) => apply::delete(client, options).await,
        Command::Logs(options) => invocations::logs(client, options).await,
        Command::Invoke(options) => invocations::invoke(client, options).await,
        Command::Cp(options) => copy::copy(client, options).await,
        Command::Ls(options) => copy::list(client, options).await,
        Command::Ui => ui::ui(client),
        Command::Explain(options) => placement::explain(client, options).await,
        Command::Placement(PlacementCommand::Simulate(options)) => placement::simulate(client, options).await,
        Command::Rollout(command) => rollout::rollout(client, command).await,
        Command::Source(command) => source::source(client, command).await,
        Command::Engines(options) => engines::engines(&options).await,
        Command::Model(command) => model::model(client, &command).await,
        Command::Crds => output::print_documents(
            types::kinds().filter(|info| info.is_ours()).map(types::custom_resource_definition),
        ),
        Command::Version => {
            println!("avocet {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::Completion { shell } => {
            cli::complete(shell);
            Ok(())
        }
    }
}
