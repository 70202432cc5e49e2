//! `avocet token`: tokens for people and programs.

use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{ClientOptions, Format, TokenCommand};
use crate::{config, output};

const PATH: &str = "/avocet/v1/tokens";

pub async fn token(options: &ClientOptions, command: TokenCommand) -> anyhow::Result<()> {
    let client = config::hub_client(options)?;
    match command {
        TokenCommand::Create { user, groups, ttl, output } => {
            let request = json!({"user": user, "groups": groups, "ttlSeconds": ttl});
            let made: Value = client.json(client.request(Method::POST, PATH).json(&request)).await?;
            match output {
                Format::Json | Format::Yaml => output::print_value(&made, output)?,
                _ => println!("{}", made.get("token").map(output::cell).unwrap_or_default()),
            }
        }
        TokenCommand::List { output } => {
            let listed: Value = client.json(client.request(Method::GET, PATH)).await?;
            match output {
                Format::Json | Format::Yaml => output::print_value(&listed, output)?,
                _ => print(&listed),
            }
        }
        TokenCommand::Revoke { id, output } => {
            client.send(client.request(Method::DELETE, &format!("{PATH}/{id}"))).await?;
            let done = json!({"id": id, "revoked": true});
            output::print_done(&done, &format!("token {id} revoked"), &id, output)?;
        }
    }
    Ok(())
}

fn print(listed: &Value) {
    let heading = ["ID", "USER", "GROUPS", "CREATED", "EXPIRES"].map(str::to_owned);
    let tokens = listed.get("tokens").and_then(Value::as_array).into_iter().flatten();
    let rows: Vec<Vec<String>> = tokens.map(row).collect();
    output::print_table(&heading, &rows, true);
}

fn row(token: &Value) -> Vec<String> {
    let text = |pointer: &str| token.pointer(pointer).map(output::cell).unwrap_or_default();
    let groups = token.pointer("/user/groups").and_then(Value::as_array).into_iter().flatten();
    let groups: Vec<&str> = groups.filter_map(Value::as_str).collect();
    vec![text("/id"), text("/user/username"), groups.join(","), text("/created"), text("/expires")]
}
