//! `foretide token`: makes, shows and revokes tokens of the API, and offers nodes to join.

use std::time::Duration;

use clap::{Args, Subcommand};
use foretide_api::{JoinWanted, Scope, TokenView, TokenWanted};
use foretide_flow::{NodeId, SiteId, Timestamp};

use super::RunError;
use crate::cli::ControlOptions;
use crate::config::parse_duration;

/// Options of `foretide token`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    control: ControlOptions,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Make a token and print it: it is shown once.
    Make {
        /// Its name, for people and for revoking.
        name: String,
        /// What it may do: read, warm, admin or agent; may be given again.
        #[arg(long = "scope", required = true, value_parser = parse_scope)]
        scopes: Vec<Scope>,
        /// Only the data of this tenant, and what nobody owns.
        #[arg(long)]
        tenant: Option<String>,
        /// How long it is good, such as `90d`; until it is revoked if absent.
        #[arg(long = "for", value_parser = parse_duration)]
        good_for: Option<Duration>,
    },
    /// Print a token by which one node can join once: see `foretide join`.
    Join {
        /// The node's name.
        node: NodeId,
        /// Its site.
        #[arg(long)]
        site: SiteId,
        /// How long it is good.
        #[arg(long = "for", default_value = "1h", value_parser = parse_duration)]
        good_for: Duration,
    },
    /// Show all tokens, without their secrets.
    List,
    /// Revoke a token, at once.
    Revoke {
        /// Its name.
        name: String,
    },
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    text.parse().map_err(|_| "use read, warm, admin or agent".to_owned())
}

/// Runs it.
///
/// # Errors
/// The control plane's refusal.
pub async fn run(options: Options) -> Result<(), RunError> {
    let control = options.control.client()?;
    match options.what {
        What::Make { name, scopes, tenant, good_for } => {
            let expires_at = good_for.map(|time| Timestamp::now() + time);
            let made = control.make_token(&TokenWanted { name, scopes, tenant, expires_at }).await?;
            println!("{}", made.secret);
        }
        What::Join { node, site, good_for } => {
            let wanted = JoinWanted { node, site, expires_at: Some(Timestamp::now() + good_for) };
            println!("{}", control.offer_join(&wanted).await?.token);
        }
        What::List => control.tokens().await?.items.iter().for_each(|token| println!("{}", line(token))),
        What::Revoke { name } => control.revoke_token(&name).await?,
    }
    Ok(())
}

fn line(token: &TokenView) -> String {
    let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.as_str()).collect();
    let tenant = token.tenant.as_ref().map_or(String::new(), |tenant| format!("  tenant {tenant}"));
    let until = token.expires_at.map_or(String::new(), |at| format!("  until {}", written(at)));
    format!("{:<32} {}{tenant}{until}", token.name, scopes.join(" "))
}

fn written(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.0)
        .map_or_else(|_| at.0.to_string(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}
