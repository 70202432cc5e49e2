//! `avocet authority`: the authority that a hub is known by, and how another one takes its place.

use api::AuthorityAnswer;
use clap::{Args, Subcommand};
use reqwest::Method;

use crate::cli::{ClientOptions, Format};
use crate::{config, output};

const PATH: &str = "/avocet/v1/authority";

#[derive(Subcommand)]
pub enum AuthorityCommand {
    /// Show the authority, until when it is good, and which sites came over to the next one
    #[command(
        after_help = "Examples:\n  avocet authority show\n  avocet authority show --pem > hub-ca.crt    what clients are to trust"
    )]
    Show(ShowOptions),
    /// Make a new authority: both are trusted, and sites come over by themselves
    #[command(
        after_help = "Example:\n  avocet authority rotate\n\nSites that are in get their next certificate from it within a heartbeat. \
                      Give the new kubeconfig in the\nhub's data folder to all who have a copy, and then, once `avocet authority \
                      show` says that no site is waiting:\n  avocet authority retire"
    )]
    Rotate(Printed),
    /// Retire the old authority: nobody trusts it from then on
    #[command(after_help = "Example:\n  avocet authority retire")]
    Retire(RetireOptions),
}

#[derive(Args)]
pub struct Printed {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Args)]
pub struct ShowOptions {
    #[command(flatten)]
    pub printed: Printed,
    /// Print the certificates that clients are to trust, and nothing else
    #[arg(long, conflicts_with = "output")]
    pub pem: bool,
}

#[derive(Args)]
pub struct RetireOptions {
    #[command(flatten)]
    pub printed: Printed,
    /// Also while sites have not come over: each of those has to join again, with a new token
    #[arg(long)]
    pub force: bool,
}

pub async fn authority(options: &ClientOptions, command: AuthorityCommand) -> anyhow::Result<()> {
    let client = config::hub_client(options)?;
    let (method, path, format) = match &command {
        AuthorityCommand::Show(options) => (Method::GET, PATH.to_owned(), options.printed.output),
        AuthorityCommand::Rotate(printed) => (Method::POST, format!("{PATH}/rotate"), printed.output),
        AuthorityCommand::Retire(options) => {
            (Method::POST, format!("{PATH}/retire?force={}", options.force), options.printed.output)
        }
    };
    let answer: AuthorityAnswer = client.json(client.request(method, &path)).await?;
    if matches!(&command, AuthorityCommand::Show(options) if options.pem) {
        print!("{}", answer.bundle);
        return Ok(());
    }
    if matches!(format, Format::Json | Format::Yaml) {
        return output::print_value(&serde_json::to_value(&answer)?, format);
    }
    let heading = ["AUTHORITY", "STATE", "ENDS", "FINGERPRINT"].map(str::to_owned);
    let row = |told: &api::ToldAuthority, state: &str| {
        let ends = told.ends.map(|ends| ends.to_string()).unwrap_or_default();
        vec![told.id.clone(), state.to_owned(), ends, told.fingerprint.clone()]
    };
    let mut rows = vec![row(&answer.current, "current")];
    rows.extend(answer.next.iter().map(|next| row(next, "next")));
    output::print_table(&heading, &rows, true);
    if answer.next.is_some() {
        println!("\n{} of {} sites came over", answer.moved.len(), answer.moved.len() + answer.waiting.len());
        answer.waiting.iter().for_each(|site| println!("  waiting for {site}"));
    }
    if matches!(command, AuthorityCommand::Rotate(_)) {
        eprintln!(
            "# both are trusted now. Whoever has a copy of the kubeconfig needs a new one; then, once no site is waiting:\n\
             #   avocet authority retire"
        );
    }
    Ok(())
}
