//! What is generated from the definition of the command line.

use clap::CommandFactory;

use super::Cli;
use super::exit::{Exit, Outcome};
use super::output::print_bytes;

/// Prints the completion script of a shell.
pub(super) fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pointsman", &mut script);
    print_bytes(&script)?;
    Ok(Exit::Ok)
}

/// Prints the manual page of the program and of all its commands.
pub(super) fn man() -> Outcome {
    let mut page = Vec::new();
    let mut root = Cli::command();
    root.build();
    render(&root, &mut page)?;
    print_bytes(&page)?;
    Ok(Exit::Ok)
}

fn render(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    clap_mangen::Man::new(command.clone()).render(page)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help")
    {
        render(below, page)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_page() {
        let mut page = Vec::new();
        let mut root = Cli::command();
        root.build();
        render(&root, &mut page).unwrap();
        let text = String::from_utf8(page).unwrap();
        for name in ["pointsman\\-status", "pointsman\\-config\\-check"] {
            assert!(text.contains(name), "{name}");
        }
    }
}
