//! The `foretide` command: a page that reads the arguments and hands over.

mod cli;
mod client;
mod config;
mod run;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    cli::start_log(&cli);
    match cli::dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("foretide: {error}");
            ExitCode::FAILURE
        }
    }
}
