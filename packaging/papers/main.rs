//! Writes what the packages carry beside the program: manual pages, completions for shells and Debian's changelog.
//! All of it comes from where it is kept already: the command line, etc/ociregistry.toml, CHANGELOG.md.
//!
//! `cargo run --example papers -- FOLDER [SECONDS]`: a version that is not released is of that date, or of today.

mod changelog;
mod commands;
mod keys;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use ociregistry::cli::Cli;

const SAMPLE: &str = include_str!("../../etc/ociregistry.toml");
const CHANGES: &str = include_str!("../../CHANGELOG.md");

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let folder = std::env::args_os().nth(1).ok_or("which folder is to be written to?")?;
    let date = match std::env::args().nth(2) {
        Some(seconds) => jiff::Timestamp::from_second(seconds.parse()?)?,
        None => jiff::Timestamp::now(),
    };
    write(Path::new(&folder), date)
}

fn write(folder: &Path, date: jiff::Timestamp) -> Result<(), Error> {
    fs::create_dir_all(folder)?;
    for (name, text) in commands::pages(Cli::command()) {
        fs::write(folder.join(name), text)?;
    }
    fs::write(folder.join("ociregistry.toml.5"), keys::page(SAMPLE))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), "ociregistry", folder)?;
    }
    fs::write(folder.join("changelog.Debian"), changelog::debian(CHANGES, date)?)?;
    Ok(())
}
