//! The `foretide` command: a page that reads the arguments and hands over.

mod cli;
mod client;
mod config;
mod run;
mod tls;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    // Whoever makes a client without saying how it encrypts takes this.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::start_log(&cli);
    match cli::dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("foretide: {error}");
            ExitCode::FAILURE
        }
    }
}
