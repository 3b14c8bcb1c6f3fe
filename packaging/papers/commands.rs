//! Manual pages of the commands, from what `--help` says.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

const MANUAL: &str = "ociregistry";

/// A page for the program and one for each of its subcommands: file name and text.
pub fn pages(command: Command) -> Vec<(String, Vec<u8>)> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, &mut pages);
    pages
}

fn add(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) {
    let man = Man::new(command.clone()).section("8").manual(MANUAL);
    pages.push((man.get_filename(), page(command, &man)));
    for subcommand in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        add(subcommand, pages);
    }
}

/// In the order of clap_mangen's own, but with the examples as they were typed.
fn page(command: &Command, man: &Man) -> Vec<u8> {
    let mut page = Vec::new();
    let to_memory = "writing to memory does not fail";
    man.render_title(&mut page).expect(to_memory);
    man.render_name_section(&mut page).expect(to_memory);
    man.render_synopsis_section(&mut page).expect(to_memory);
    man.render_description_section(&mut page).expect(to_memory);
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page).expect(to_memory);
    }
    man.render_options_section(&mut page).expect(to_memory);
    let mut rest = Roff::default();
    if let Some(text) = command.get_after_long_help() {
        verbatim(&mut rest, &text.to_string());
    }
    references(&mut rest);
    rest.to_writer(&mut page).expect(to_memory);
    page
}

/// The lines after `--help`'s options; their first is a heading.
fn verbatim(roff: &mut Roff, text: &str) {
    let (heading, lines) = text.split_once('\n').unwrap_or((text, ""));
    roff.control("SH", [heading.trim_end_matches(':').to_uppercase().as_str()]);
    roff.control("nf", []);
    for line in lines.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}

fn references(roff: &mut Roff) {
    roff.control("SH", ["FILES"]);
    for (path, what) in [
        ("/etc/ociregistry.toml", "The configuration: ociregistry.toml(5)."),
        ("/var/lib/ociregistry", "The cache, as plain files."),
    ] {
        roff.control("TP", []);
        roff.text([roman(path)]);
        roff.text([roman(what)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("ociregistry"), roman("(8), "), bold("ociregistry.toml"), roman("(5)")]);
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use ociregistry::cli::Cli;

    use super::*;

    #[test]
    fn every_command_and_every_option_of_it_has_its_place() {
        let pages = pages(Cli::command());
        let text = |name: &str| {
            let (_, text) =
                pages.iter().find(|(page, _)| page == name).unwrap_or_else(|| panic!("no {name}"));
            String::from_utf8(text.clone()).unwrap().replace('\\', "")
        };
        let mut command = Cli::command();
        command.build();
        let mut commands = vec![(command, "ociregistry".to_owned())];
        while let Some((command, name)) = commands.pop() {
            let page = text(&format!("{name}.8"));
            for option in command.get_arguments().filter_map(|argument| argument.get_long()) {
                assert!(page.contains(&format!("--{option}")), "{name}: no --{option}");
            }
            let visible = command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help");
            commands.extend(visible.map(|c| (c.clone(), format!("{name}-{}", c.get_name()))));
        }
    }

    #[test]
    fn examples_keep_their_lines() {
        let (_, page) = pages(Cli::command()).remove(0);
        let page = String::from_utf8(page).unwrap().replace('\\', "");
        let (_, examples) = page.split_once(".SH EXAMPLES\n.nf\n").unwrap();
        assert!(
            examples.contains("\n    docker pull localhost:8080/registry.k8s.io/pause:3.9\n"),
            "{examples}"
        );
    }
}
